package embedded

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
)

// A store is inspected while it is in use, and without that: the messages are those that are committed. Nothing is
// created, and a store of another owner is told.
func TestInspect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "messages.db")
	if _, err := Inspect(path, "me"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no store: %v", err)
	}
	s, err := Open(path, Options{Owner: "me", Service: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Bind(t.Context(), peer("p", "to_debtors", "00.#", "peer.p.0")); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		i, err := Inspect(path, "me")
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if len(i.Queues) != 1 || i.Queues[0].Name != "peer.p.0" || i.Bindings["p"].Queues[0] != "peer.p.0" {
			t.Errorf("%s: %+v", when, i)
		}
		if _, err := Inspect(path, "you"); !errors.Is(err, ErrOwner) {
			t.Errorf("%s, of another owner: %v", when, err)
		}
	}
	check("open")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check("closed")
}
