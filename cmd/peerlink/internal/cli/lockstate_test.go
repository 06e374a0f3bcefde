package cli

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"peerlink/internal/durable"
)

// A second service is refused, also when the lock's file was removed under the first.
func TestLockState(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockState(dir); err == nil {
		t.Error("locked twice")
	}
	if runtime.GOOS == "linux" {
		if err := os.Remove(filepath.Join(dir, "serve.lock")); err != nil {
			t.Fatal(err)
		}
		if _, err := lockState(dir); err == nil {
			t.Error("locked twice, after its file was removed")
		}
	}
	unlock()
	unlock, err = lockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// The lock is not made through a symbolic link, which others may have put into a folder that is a
// group's.
func TestLockStateThroughLink(t *testing.T) {
	dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "nologin")
	if err := os.Symlink(victim, filepath.Join(dir, "serve.lock")); err != nil || durable.NoFollow == 0 {
		t.Skipf("no symbolic links, or they are always followed: %v", err)
	}
	if unlock, err := lockState(dir); err == nil {
		unlock()
		t.Error("locked through a symbolic link")
	} else if !strings.Contains(err.Error(), "remove the link") {
		t.Errorf("%v names no way out", err)
	}
	if _, err := os.Lstat(victim); err == nil {
		t.Error("the file where the link leads to has been created")
	}
}

// A state folder is refused if every user can replace it, because a folder above it is
// writable for all and has no sticky bit.
func TestStateFolderCanNotBeReplaced(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no file modes: skipped")
	}
	shared := t.TempDir()
	state := filepath.Join(shared, "folder", "state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	for mode, good := range map[os.FileMode]bool{0o755: true, 0o777 | os.ModeSticky: true, 0o777: false, 0o702: false} {
		if err := os.Chmod(shared, mode); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{state, filepath.Join(shared, "folder", "new", "state")} {
			if _, err := stateFolder(nil, path); (err == nil) != good {
				t.Errorf("%s in a folder with mode %v: %v", path, mode, err)
			}
		}
	}
}
