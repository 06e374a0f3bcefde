package local

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/internal/durable"
)

// The door's lock is not made through a symbolic link, which others may have put into a folder
// that is a group's.
func TestLockThroughLink(t *testing.T) {
	dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "nologin")
	if err := os.Symlink(victim, filepath.Join(dir, lockFile)); err != nil || durable.NoFollow == 0 {
		t.Skipf("no symbolic links, or they are always followed: %v", err)
	}
	if l, err := lockDoor(dir); err == nil {
		l.Close()
		t.Error("locked through a symbolic link")
	} else if !strings.Contains(err.Error(), "remove the link") {
		t.Errorf("%v names no way out", err)
	}
	if _, err := os.Lstat(victim); err == nil {
		t.Error("the file where the link leads to has been created")
	}
}
