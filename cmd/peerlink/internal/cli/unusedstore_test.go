package cli

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/broker"
	"peerlink/broker/embedded"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// A service that uses RabbitMQ warns of messages that wait in the embedded store, in the
// default state folder or in that of --state, also if the store cannot be read. It warns
// of nothing else, and creates no files or folders.
func TestUnusedStore(t *testing.T) {
	base := t.TempDir()
	t.Setenv("XDG_STATE_HOME", base)
	d := nodetest.New(t, nodetype.CreditorsAgent, "ca.example.com:1234").Dir
	warning := func(state string) string {
		var log bytes.Buffer
		warnUnusedStore(d, state, slog.New(slog.NewTextHandler(&log, nil)))
		return log.String()
	}
	other := filepath.Join(base, "other")
	for _, state := range []string{"", other} {
		if w := warning(state); w != "" {
			t.Errorf("state %q, no store: got warning %s, want none", state, w)
		}
		if _, err := os.Stat(other); err == nil {
			t.Error("warnUnusedStore has created the state folder")
		}
	}
	folder := defaultState(d)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := openStore(d, storePath(folder), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Bind(t.Context(), broker.PeerBinding{PeerID: "p", Exchange: "x", Fanout: true, Queues: []string{"q"}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if w := warning(""); w != "" {
		t.Errorf("a store without messages: got warning %s, want none", w)
	}
	if s, err = openStore(d, storePath(folder), embedded.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := s.PutAll(t.Context(), "q", []broker.Outgoing{{Type: "T"}, {Type: "T"}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"", folder} {
		if w := warning(state); !strings.Contains(w, "level=WARN") || !strings.Contains(w, "waiting=2") || !strings.Contains(w, "--broker embedded") {
			t.Errorf("state %q: warning %q", state, w)
		}
	}
	if w := warning(other); w != "" {
		t.Errorf("another state folder: got warning %s, want none", w)
	}
	if err := os.WriteFile(storePath(folder), []byte("this is no database, and long enough for its header: 1234567890"), 0o600); err != nil {
		t.Fatal(err)
	}
	if w := warning(""); !strings.Contains(w, "level=WARN") || !strings.Contains(w, "err=") {
		t.Errorf("a file that is not a database: got warning %q", w)
	}
}
