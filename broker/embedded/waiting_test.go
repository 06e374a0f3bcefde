package embedded

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// The messages in a store can be counted without opening it, while it is in use and
// afterwards. No file changes, and none is created. A file that is not a store is an
// error; a missing file is not.
func TestReadWaiting(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "messages.db")
	if w, err := ReadWaiting(path); w != (Waiting{}) || err != nil {
		t.Errorf("no file: %+v, %v", w, err)
	}
	s := openFile(t, path, Options{})
	declareTest(t, s, "q")
	putBodies(t, s, "q", "1", "2", "3")
	setAsideFirst(t, s, "q", 1)
	if w, err := ReadWaiting(path); err != nil || !w.Inexact {
		t.Errorf("while it is in use: %+v, %v", w, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	if w, err := ReadWaiting(path); w != (Waiting{Messages: 2, SetAside: 1}) || err != nil {
		t.Errorf("after closing: %+v, %v", w, err)
	}
	after := contents(t, dir)
	for name := range after {
		if !bytes.Equal(after[name], before[name]) {
			t.Errorf("%s has changed", name)
		}
	}
	if len(after) != len(before) {
		t.Errorf("there are %d files, and were %d", len(after), len(before))
	}
	for name, text := range map[string]string{"text": "no database at all, but longer than its header", "folder": ""} {
		path := filepath.Join(dir, name)
		var err error
		if text == "" {
			err = os.Mkdir(path, 0o700)
		} else {
			err = os.WriteFile(path, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if w, err := ReadWaiting(path); err == nil {
			t.Errorf("%s: %+v", name, w)
		}
	}
}

// contents returns the contents of all files in a folder.
func contents(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]byte)
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = data
	}
	return all
}
