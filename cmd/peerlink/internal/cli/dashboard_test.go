package cli

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/admin"
)

// A link with the token is printed only if it leads to a port that the service has: any other port may be that of
// another user's program, which would get the token.
func TestDashboardLink(t *testing.T) {
	const token = "PWL7TTYCOOBSKMBGBQ3T5ZDLKU"
	for url, want := range map[string]string{
		"http://127.0.0.1:4711/": "http://127.0.0.1:4711/#token=" + token + "\n",
		"":                       token + "\n",
	} {
		var out, errs bytes.Buffer
		a := &app{stdout: &out, stderr: &errs}
		a.showDashboard(dashboardLink{Admin: "unix:/state/admin.sock", URL: url, Token: token})
		if out.String() != want {
			t.Errorf("URL %q: %q, want %q", url, out.String(), want)
		}
		if text := errs.String(); strings.Contains(text, token) || strings.Contains(text, "localhost") || (url == "") != strings.Contains(text, "ExitOnForwardFailure=yes -L 127.0.0.1:") {
			t.Errorf("URL %q: %q", url, text)
		}
	}
}

// Without a running service, as after one was killed, whose token and socket are still there, the command says that
// none answers, and not that one runs.
func TestDashboardOfKilledService(t *testing.T) {
	state, err := os.MkdirTemp("", "") // a short name: that of a socket is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(state) })
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(state, adminSocketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	records, err := new(app).dashboardServices(t.Context(), state)
	if err != nil || len(records) != 1 {
		t.Fatal(records, err)
	}
	_, err = findDashboard(t.Context(), records[0])
	if !errors.Is(err, admin.ErrNoServer) || strings.Contains(err.Error(), "a service runs") || !strings.Contains(err.Error(), `is "peerlink serve" running`) {
		t.Error(err)
	}
}
