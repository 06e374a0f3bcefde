package cli

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"peerlink/admin"
	"peerlink/internal/socket"
)

// The socket in the state folder is there whatever the operator chooses, but for "none". A port
// that is taken is an error only if the operator has chosen it.
func TestAdminAddresses(t *testing.T) {
	state, err := os.MkdirTemp("", "admin") // the path of a Unix socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(state) })
	own := adminSocket(state)
	taken := listenOn(t, "127.0.0.1:0")
	listenOn(t, defaultDashboard)
	long := filepath.Join(state, strings.Repeat("x", socket.MaxPath))
	for _, tt := range []struct {
		name, admin, state string
		want               []string // nil: an error
	}{
		{"default, and the port is taken", "", state, []string{own}},
		{"the port is taken, and there is no state folder", "", "", []string{}},
		{"a port", "127.0.0.1:0", state, []string{own, "127.0.0.1:"}},
		{"a port, and no state folder", "127.0.0.1:0", "", []string{"127.0.0.1:"}},
		{"a port, and the socket's path is too long", "127.0.0.1:0", long, []string{"127.0.0.1:"}},
		{"a port that is taken", taken, state, nil},
		{"another socket", admin.UnixAddress(filepath.Join(state, "s")), state, []string{own, admin.UnixAddress(filepath.Join(state, "s"))}},
		{"the same socket", own, state, []string{own}},
		{"none", noAdmin, state, []string{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := openAdmin(serveFlags{admin: tt.admin}, tt.state, admin.Config{Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				if tt.want != nil {
					t.Error(err)
				}
				return
			}
			var got []string
			if s != nil {
				defer s.Close()
				got = s.Addresses()
			}
			if tt.want == nil || !slices.EqualFunc(got, tt.want, strings.HasPrefix) {
				t.Errorf("listens on %q, want %q", got, tt.want)
			}
		})
	}
}

// listenOn listens on a TCP address, unless another process does, and returns the address.
func listenOn(t *testing.T, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		return address
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}
