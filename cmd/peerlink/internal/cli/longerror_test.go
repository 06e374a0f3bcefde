package cli

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// An error that quotes a long text is shortened before it is printed or logged. An
// error that quotes a file from another user is shortened already when it is made.
func TestLongErrorsAreCut(t *testing.T) {
	const most = maxErrorText + 1000
	d := nodetest.New(t, nodetype.CreditorsAgent, "ca.example.com:1234")
	dir := t.TempDir()
	request := filepath.Join(dir, "request")
	if err := os.WriteFile(request, []byte(`{"version":`+strings.Repeat("9", 2<<20-100)+`}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"fulfil", request, filepath.Join(dir, "answer")},
		{"peer", "show", strings.Repeat("x", 100_000)},
		{"serve", "--log-level", strings.Repeat("x", 100_000)},
	} {
		code, stdout, stderr := runCommand(append([]string{"-C", d.Path()}, args...)...)
		if code == 0 || len(stdout)+len(stderr) > most {
			t.Errorf("%.10q: exit code %d, %d bytes on stdout, %d on stderr", args, code, len(stdout), len(stderr))
		}
		if args[0] == "fulfil" && len(stderr) > 1000 {
			t.Errorf("the error for a request has %d bytes, want at most 1000", len(stderr))
		}
	}

	for format, handler := range map[string]func(*bytes.Buffer, *slog.HandlerOptions) slog.Handler{
		"text": func(b *bytes.Buffer, o *slog.HandlerOptions) slog.Handler { return slog.NewTextHandler(b, o) },
		"json": func(b *bytes.Buffer, o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(b, o) },
	} {
		var b bytes.Buffer
		long := strings.Repeat("x", 100_000)
		slog.New(handler(&b, &slog.HandlerOptions{ReplaceAttr: logAttr})).Warn("w", "err", fmt.Errorf("e: %w", errors.New(long)), "text", long, "none", nil, "n", 1)
		if out := b.String(); len(out) > 2*most || strings.Contains(out, "none") || !strings.Contains(out, "xxx…") {
			t.Errorf("a record in %s has %d bytes: %.300s", format, len(out), out)
		}
	}
}
