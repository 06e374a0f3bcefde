package embedded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Only the owner can access the store: the file, and SQLite's other files.
func TestOpenPermissions(t *testing.T) {
	s := openTest(t, Options{})
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(s.path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("file%s has mode %v, want 0600", suffix, info.Mode().Perm())
		}
	}
}

// After Close, all messages are in the one file, so that it can be moved or copied.
func TestCloseLeavesOneFile(t *testing.T) {
	s := openTest(t, Options{})
	publishBodies(t, s, "accounts_in", numbers(100)...)
	queued(t, s, "accounts_in")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(filepath.Dir(s.path))
	if err != nil || len(files) != 1 {
		t.Errorf("files %v, %v, want one", files, err)
	}
}

// Any file name that the file system allows works, including characters with a meaning in
// URIs.
func TestOpenPath(t *testing.T) {
	for _, name := range []string{"a b.db", "a?mode=memory&x=%41#y.db", "file:x.db", ":memory:"} {
		path := filepath.Join(t.TempDir(), name)
		openFile(t, path, Options{})
		if info, err := os.Stat(path); err != nil || info.Size() == 0 {
			t.Errorf("%q: the file is missing or empty (%v)", name, err)
		}
	}
}

// A file of another program, or of a newer version, is refused and not changed.
func TestOpenRefuses(t *testing.T) {
	sqlFile := func(sql string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := openConn(path)
			if err != nil {
				t.Fatal(err)
			}
			defer c.close()
			if err := c.exec(sql); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, test := range []struct {
		name string
		make func(t *testing.T, path string)
		want error
	}{
		{"text", func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("this file is a text file, and longer than an SQLite header is: 100 bytes, or some more of them."), 0o600); err != nil {
				t.Fatal(err)
			}
		}, errNotStore},
		{"other database", sqlFile("CREATE TABLE accounts (id INTEGER)"), errNotStore},
		{"no tables", sqlFile("PRAGMA user_version = 1; PRAGMA user_version = 0"), errNotStore},
		{"newer", sqlFile(schema + fmt.Sprintf("PRAGMA user_version = %d", schemaVersion+1)), errNewer},
		{"no bytes", func(t *testing.T, path string) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, errNotStore},
		{"no directory", func(*testing.T, string) {}, os.ErrNotExist},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "messages.db")
			if test.want == os.ErrNotExist {
				path = filepath.Join(path, "messages.db")
			}
			test.make(t, path)
			before, _ := os.ReadFile(path)
			s, err := Open(path, Options{})
			if err == nil {
				s.Close()
			}
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if after, _ := os.ReadFile(path); string(after) != string(before) {
				t.Error("the file was changed")
			}
		})
	}
}

// If the path is a symbolic link, the store is its target, with all its files; a dangling
// link is an error, and no file is created.
func TestOpenLink(t *testing.T) {
	s := openTest(t, Options{})
	publishBodies(t, s, "accounts_in", "a")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "messages.db")
	if err := os.Symlink(s.path, link); err != nil {
		t.Skipf("skipped: store behind a symbolic link (%v)", err)
	}
	other := openFile(t, link, Options{Service: true})
	wantQueued(t, other, "accounts_in", "a")
	publishBodies(t, other, "accounts_in", "b")
	if _, err := os.Stat(s.path + "-wal"); err != nil {
		t.Error(err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.path); err != nil {
		t.Fatal(err)
	}
	if other, err := Open(link, Options{Service: true}); err == nil {
		other.Close()
		t.Error("a dangling link is opened")
	}
	if _, err := os.Stat(s.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was created: %v", err)
	}
}
