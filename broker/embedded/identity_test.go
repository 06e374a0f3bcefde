package embedded

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"peerlink/internal/durable"
)

// copyFile copies a file of a store.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// messageIDs returns the IDs of the messages in the inbox, by body.
func messageIDs(t *testing.T, s *Store) map[string]string {
	t.Helper()
	messages, err := s.Peek(testContext(t), "accounts_in", 100)
	if err != nil {
		t.Fatal(err)
	}
	ids := make(map[string]string)
	for _, m := range messages {
		ids[string(m.Body)] = m.ID
	}
	return ids
}

// A message keeps its ID when it is delivered again, after a restart too. No other message
// ever gets that ID, even after an older state of the store was restored, or after the
// store was lost, although sequence numbers start again.
func TestMessageIDs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "messages.db")
	seen := make(map[string]string) // body by ID
	checkIDs := func(s *Store, want int) {
		t.Helper()
		ids := messageIDs(t, s)
		if len(ids) != want {
			t.Errorf("%d messages, want %d", len(ids), want)
		}
		for body, id := range ids {
			if other, ok := seen[id]; ok && other != body {
				t.Errorf("message %q has the ID %s, which message %q had before", body, id, other)
			}
			seen[id] = body
		}
	}
	s := openFile(t, path, Options{})
	publishBodies(t, s, "accounts_in", "a", "b")
	before := messageIDs(t, s)
	checkIDs(s, 2)
	sub := subscribe(t, s, "accounts_in")
	got, err := sub.Next(testContext(t), 2)
	if err != nil || got[0].ID != before["a"] || got[1].ID != before["b"] {
		t.Errorf("delivered as %v (%v), want %v", got, err, before)
	}
	s = reopen(t, s)
	if after := messageIDs(t, s); after["a"] != before["a"] || after["b"] != before["b"] {
		t.Errorf("after a restart the IDs are %v, before %v", after, before)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	copyFile(t, path, path+"-backup")
	s = openFile(t, path, Options{})
	publishBodies(t, s, "accounts_in", "c")
	checkIDs(s, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+"-backup", path); err != nil {
		t.Fatal(err)
	}
	s = openFile(t, path, Options{})
	publishBodies(t, s, "accounts_in", "d")
	checkIDs(s, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	s = openFile(t, path, Options{})
	publishBodies(t, s, "accounts_in", "e")
	checkIDs(s, 1)
}

// A store belongs to the first owner that it was served for, and can not be opened for
// another; only a service becomes the owner of a store without one.
func TestOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "messages.db")
	open := func(o Options, want error) {
		t.Helper()
		s, err := Open(path, o)
		if err == nil {
			err = s.Close()
		}
		if !errors.Is(err, want) {
			t.Errorf("opened by %q: got %v, want %v", o.Owner, err, want)
		}
	}
	open(Options{Owner: "one"}, nil) // beside a service with a schema version below 3
	open(Options{Owner: "two", Service: true}, nil)
	open(Options{Owner: "one"}, ErrOwner)
	open(Options{Owner: "one", Service: true}, ErrOwner)
	open(Options{Owner: "two"}, nil)
	open(Options{}, nil)
}

// No file that the store creates beside its own is written through a symbolic link, which
// another user may have made in a folder that a group can write.
func TestFilesBesideStoreAreNoLinks(t *testing.T) {
	dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o640); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "messages.db")
	for _, suffix := range []string{"-reserve", lastTokenSuffix} {
		if err := os.Symlink(victim, path+suffix); err != nil {
			t.Skip(err)
		}
	}
	created := filepath.Join(t.TempDir(), "created")
	if err := os.Symlink(created, path+"-turn"); err != nil {
		t.Skip(err)
	}
	s, err := Open(path, Options{Service: true, Reserve: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "precious" {
		t.Errorf("the target of the links has %d bytes, %v, want it unchanged", len(got), err)
	}
	if _, err := os.Lstat(created); err == nil && durable.NoFollow != 0 {
		t.Error("the target of a link was created")
	}
}

// After an error of the disk, the store is checked when it is opened next, even if it was closed in
// good order: a later sync may have succeeded although earlier pages never reached the disk.
func TestCheckedAfterDiskError(t *testing.T) {
	for _, failed := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "messages.db")
		s, err := Open(path, Options{Service: true})
		if err != nil {
			t.Fatal(err)
		}
		if failed {
			done, err := s.submitCall(func(*tx) error {
				s.writer.recordFailure(&ioError{errors.New("disk I/O error"), errors.New("input/output error")})
				return nil
			})
			if err == nil {
				err = <-done
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		c, err := openConn(path)
		if err != nil {
			t.Fatal(err)
		}
		closed, err := c.number("SELECT closed FROM store")
		if err != nil || (closed == 0) != failed {
			t.Errorf("disk failed: %v; closed is %d, %v", failed, closed, err)
		}
		if err := c.close(); err != nil {
			t.Fatal(err)
		}
		if s, err = Open(path, Options{Service: true}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A store that is given from one owner to another keeps its messages, can not be opened for the former owner any more,
// and stays as it is if it belongs to a third one.
func TestAdopt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "messages.db")
	if err := Adopt(t.Context(), path, "one", "two", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a store: %v", err)
	}
	s := openFile(t, path, Options{Owner: "one", Service: true})
	publishBodies(t, s, "accounts_in", "a")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Adopt(t.Context(), path, "three", "two", nil); !errors.Is(err, ErrOwner) {
		t.Errorf("the store of another owner: %v", err)
	}
	for range 2 { // as after an interruption
		if err := Adopt(t.Context(), path, "one", "two", nil); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := Open(path, Options{Owner: "one", Service: true}); !errors.Is(err, ErrOwner) {
		t.Errorf("opened for the former owner: %v", err)
		if err == nil {
			s.Close()
		}
	}
	s = openFile(t, path, Options{Owner: "two", Service: true})
	if ids := messageIDs(t, s); len(ids) != 1 || ids["a"] == "" {
		t.Errorf("messages after the store has another owner: %v", ids)
	}
}
