package local

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/internal/durable"
)

// The lock file of the door is not made through a symbolic link, which other users may have
// made in a folder that a group can write to.
func TestLockThroughLink(t *testing.T) {
	dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "nologin")
	if err := os.Symlink(victim, filepath.Join(dir, lockFile)); err != nil || durable.NoFollow == 0 {
		t.Skipf("no symbolic links, or they are always followed: %v", err)
	}
	if l, err := lockDoor(dir); err == nil {
		l.Close()
		t.Error("locked through a symbolic link")
	} else if !strings.Contains(err.Error(), "remove the link") {
		t.Errorf("the error %v names no remedy", err)
	}
	if _, err := os.Lstat(victim); err == nil {
		t.Error("the target of the link has been created")
	}
}
