//go:build unix

package durable

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

const nobody = 65534

func ownerOf(t *testing.T, path string) int {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return int(fi.Sys().(*syscall.Stat_t).Uid)
}

// A file that root writes belongs to another user only if it replaces a file of this user in
// a folder where no other user can have created that file. Otherwise, in a folder such as
// /tmp, a user could get a secret by creating a file in its place.
func TestOwnerOfWrittenFile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, tt := range []struct {
		name  string
		owner int // of the folder
		mode  os.FileMode
		want  int
	}{
		{"folder of the user", nobody, 0o700, nobody},
		{"folder that only root writes", 0, 0o755, nobody},
		{"folder like /tmp", 0, 0o777 | os.ModeSticky, 0},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "f")
		createTheirs := func() {
			t.Helper()
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(path, nobody, nobody); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chown(dir, tt.owner, -1); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, tt.mode); err != nil {
			t.Fatal(err)
		}
		createTheirs()
		if err := Replace(path, []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := ownerOf(t, path); got != tt.want {
			t.Errorf("%s: the replaced file belongs to user %d, want %d", tt.name, got, tt.want)
		}
		// Another user has created a file between the check for an existing file and the
		// writing.
		createTheirs()
		tmp, err := writeTemp(path, []byte("secret"), 0o600, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := ownerOf(t, tmp); got != 0 {
			t.Errorf("%s: a new file belongs to user %d, want root", tt.name, got)
		}
	}
}

// Nothing is written, nor removed, through a symbolic link that leads out of a root.
func TestReplaceIn(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	victim := filepath.Join(outside, "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"file": victim, "folder": outside} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := ReplaceIn(root, "folder/victim", []byte("x"), 0o644); err == nil {
		t.Error("written outside of the root")
	}
	for range 2 {
		if err := ReplaceIn(root, "file", []byte("new"), 0o644); err != nil {
			t.Error(err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(got) != "new" || left(t, dir) != "file folder" {
		t.Errorf("%q, %v, the folder has %q", got, err, left(t, dir))
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "precious" || left(t, outside) != "victim" {
		t.Errorf("%q, %v, outside is %q", got, err, left(t, outside))
	}
}
