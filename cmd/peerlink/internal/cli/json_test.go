package cli

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"
)

// Every command that has results prints them as JSON with --json, and docs/json.md documents that.
func TestJSONIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	without := []string{
		"key passphrase", "key drill", "request forget", "man", "serve", "swpt-server", "swpt-client", "swpt-drainer", "configure-queue",
		"completion bash", "completion zsh", "completion fish", "completion powershell", "help",
	}
	all := leaves((&app{}).root())
	for _, name := range without {
		if c := all[name]; c == nil || c.Flags().Lookup("json") != nil {
			t.Errorf("%q is not a command without --json", name)
		}
		delete(all, name)
	}
	for name, c := range all {
		if c.Flags().Lookup("json") == nil {
			t.Errorf("%q has no --json", name)
		}
		if title := "## `" + strings.TrimSpace("peerlink "+name) + "`\n"; !strings.Contains(string(doc), title) {
			t.Errorf("docs/json.md has no section of %q", name)
		}
	}
}

// Durations in a log in JSON are numbers of seconds, also in groups.
func TestJSONLogDurations(t *testing.T) {
	var out bytes.Buffer
	slog.New(jsonHandler(&out, slog.LevelInfo, false)).Info("x", "wait", 1500*time.Millisecond, slog.Group("g", "wait", time.Minute))
	var record struct {
		Wait float64
		G    struct{ Wait float64 }
	}
	if err := json.Unmarshal(out.Bytes(), &record); err != nil || record.Wait != 1.5 || record.G.Wait != 60 {
		t.Errorf("%v: %s", err, out.String())
	}
}
