package cli

import (
	"bytes"
	"strings"
	"testing"
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
