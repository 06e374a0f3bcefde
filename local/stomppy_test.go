package local

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A common client library, without any knowledge of peerlink, works with the door.
func TestStompPy(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(1, 3)
	host, port, err := net.SplitHostPort(h.tcp())
	if err != nil {
		t.Fatal(err)
	}
	out := runStompPy(t, "{}\n[\"a:b\"]\n", host, port, h.secret, toPeer)
	want := []string{
		`receipt line 0: \`,
		`receipt line 1: \`,
		`message 1 PrepareTransfer -4294967296 /exchange/accounts_in/1.0.1 false`,
		`receipt 0`,
		`receipt ack`,
		`message 2 PrepareTransfer -4294967296 /exchange/accounts_in/1.0.1 false`,
		`receipt 1`,
		`message 2 PrepareTransfer -4294967296 /exchange/accounts_in/1.0.1 true`,
		`receipt 2`,
		`receipt ack`,
		`receipt bye`,
	}
	if got := strings.Split(strings.TrimSuffix(out, "\n"), "\n"); !slices.Equal(got, want) {
		t.Errorf("got:\n%s\n\nexpected:\n%s", out, strings.Join(want, "\n"))
	}
	if got := h.queued("accounts_in"); !slices.Equal(got, []string{"3"}) {
		t.Errorf("inbox holds %q, expected only 3", got)
	}
	if got := h.queued("peer.0"); !slices.Equal(got, []string{"{}", `["a:b"]`, "answer to 1", "answer to 2", "answer to 2"}) {
		t.Errorf("sent: %q", got)
	}
}

// runStompPy runs testdata/client.py with the first Python that has stomp.py.
func runStompPy(t *testing.T, in string, args ...string) string {
	t.Helper()
	script, err := filepath.Abs(filepath.Join("testdata", "client.py"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	for _, python := range []string{"python3", "/usr/bin/python3"} { // the second has Debian's packages
		cmd := exec.CommandContext(ctx, python, append([]string{script}, args...)...)
		cmd.Dir = t.TempDir()
		cmd.Stdin = strings.NewReader(in)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		var exit *exec.ExitError
		switch {
		case err == nil:
			return string(out)
		case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		case errors.As(err, &exit) && exit.ExitCode() == 77:
		default:
			t.Fatalf("%v\n%s", err, out)
		}
	}
	t.Skip("skipped: a session with stomp.py, which is not installed (Debian's package python3-stomp)")
	return ""
}
