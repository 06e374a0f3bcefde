package embedded

import (
	"bytes"
	"path/filepath"
	"slices"
	"testing"
)

// The IDs of dead letters can be read without opening the store, while it is in use and afterwards, and
// no file changes or is created.
func TestReadAsideIDs(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "messages.db")
	want := func(what string, most int, ids ...string) {
		t.Helper()
		before := contents(t, dir)
		found, err := ReadAsideIDs(path, most)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		var got []string
		for _, f := range found {
			got = append(got, f.Queue+" "+f.ID)
		}
		if !slices.Equal(got, ids) {
			t.Errorf("%s: %q, want %q", what, got, ids)
		}
		after := contents(t, dir)
		for name := range after {
			// Readers have marks in the index of the log, which is no part of the store.
			if filepath.Ext(name) != ".db-shm" && !bytes.Equal(after[name], before[name]) {
				t.Errorf("%s: %s has changed", what, name)
			}
		}
		if len(after) != len(before) {
			t.Errorf("%s: there are %d files, and were %d", what, len(after), len(before))
		}
	}
	want("no file", 10)
	s := openFile(t, path, Options{})
	declareTest(t, s, "q")
	putBodies(t, s, "q", "1", "2", "3")
	setAsideFirst(t, s, "q", 2)
	want("in use", 10, "q 1", "q 2")
	want("in use, bounded", 1, "q 1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want("closed", 10, "q 1", "q 2")
}
