package local

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Common client libraries, with the versions of STOMP that they use unless told otherwise, send,
// subscribe and acknowledge as they do with RabbitMQ's plugin.
func TestOlderClients(t *testing.T) {
	const body = `{"a:b": "c\\d"}`
	python := func(version string) []string {
		return []string{"version " + version, `receipt sent:1\`, "message 1 PrepareTransfer false", "receipt ack",
			"message 2 PrepareTransfer false", "receipt ack", "receipt bye"}
	}
	ruby := func(version string) []string {
		return []string{"version " + version, "sent RECEIPT", "message 1 PrepareTransfer false", "acknowledged RECEIPT",
			"message 2 PrepareTransfer false", "acknowledged RECEIPT", "bye bye"}
	}
	for _, c := range []struct {
		name, program, script, what string
		args, want                  []string
	}{
		{"stomp.py 1.0", "/usr/bin/python3", "client10.py", "stomp.py, Debian's package python3-stomp", []string{"1.0"}, python("1.0")},
		{"stomp.py 1.1", "/usr/bin/python3", "client10.py", "stomp.py, Debian's package python3-stomp", []string{"1.1"}, python("1.1")},
		{"ruby-stomp 1.0", "ruby", "client.rb", "ruby-stomp, Debian's package of this name", []string{"1.0"}, ruby("1.0")},
		{"ruby-stomp 1.1", "ruby", "client.rb", "ruby-stomp, Debian's package of this name", []string{"1.1"}, ruby("1.1")},
		{"ruby-stomp 1.2", "ruby", "client.rb", "ruby-stomp, Debian's package of this name", []string{"1.2"}, ruby("1.2")},
		{"Net::Stomp", "perl", "client.pl", "Net::Stomp, Debian's package libnet-stomp-perl", nil,
			[]string{"version 1.0", "session", "sent RECEIPT", "committed yes", "message 1 PrepareTransfer false", "message 2 PrepareTransfer false"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t, nil)
			h.publish(1, 2)
			host, port, err := net.SplitHostPort(h.tcp())
			if err != nil {
				t.Fatal(err)
			}
			out := runClient(t, c.program, c.script, c.what, append(c.args, host, port, h.secret, toPeer)...)
			if got := strings.Split(strings.TrimSuffix(out, "\n"), "\n"); !slices.Equal(got, c.want) {
				t.Errorf("got:\n%s\n\nexpected:\n%s", out, strings.Join(c.want, "\n"))
			}
			h.eventually("the inbox is empty", func() bool { return len(h.queued("accounts_in")) == 0 })
			sent := []string{body}
			if slices.Contains(c.want, "committed yes") {
				sent = append(sent, "{}")
			}
			if got := h.queued("peer.0"); !slices.Equal(got, sent) {
				t.Errorf("sent: %q", got)
			}
		})
	}
}

// eventually waits until a condition holds.
func (h *house) eventually(what string, holds func() bool) {
	h.tb.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.tb.Fatalf("not true after %v: %s", patience, what)
		}
	}
}

// runClient runs a script of testdata, and returns its output. It skips the test if the program,
// or the client library (the script then exits with 77), is not installed.
func runClient(t *testing.T, program, script, library string, args ...string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", script))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("skipped: a session with %s, for lack of %s", library, program)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{path}, args...)...)
	cmd.Dir, cmd.Stderr = t.TempDir(), os.Stderr
	out, err := cmd.Output()
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == 77 {
		t.Skipf("skipped: a session with %s, which is not installed", library)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}
