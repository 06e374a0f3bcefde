package cli

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/gofrs/flock"

	"peerlink/internal/durable"
)

// A second service on the same state folder is refused, also if the lock file was
// removed while the first service holds the lock.
func TestLockState(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	unlock, err := lockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockState(dir); err == nil {
		t.Error("lockState succeeded while the folder was locked")
	}
	if runtime.GOOS == "linux" {
		if err := os.Remove(filepath.Join(dir, "serve.lock")); err != nil {
			t.Fatal(err)
		}
		if _, err := lockState(dir); err == nil {
			t.Error("lockState succeeded while the folder was locked, after the lock file was removed")
		}
	}
	unlock()
	unlock, err = lockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// A lock that another user can hold on a folder that everybody can open prevents nothing.
func TestFolderLockOfOthers(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	other := flock.New(dir, flock.SetFlag(os.O_RDONLY))
	if ok, err := other.TryLock(); err != nil || !ok {
		t.Skipf("skipped: locks on folders (%v)", err)
	}
	defer other.Close()
	unlock, err := lockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// The lock file is not created through a symbolic link, which another user may have made in a
// folder that a group can write.
func TestLockStateThroughLink(t *testing.T) {
	dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "nologin")
	if err := os.Symlink(victim, filepath.Join(dir, "serve.lock")); err != nil || durable.NoFollow == 0 {
		t.Skipf("no symbolic links, or they are always followed: %v", err)
	}
	if unlock, err := lockState(dir); err == nil {
		unlock()
		t.Error("lockState succeeded through a symbolic link")
	} else if !strings.Contains(err.Error(), "remove the link") {
		t.Errorf("got error %v, want one that contains \"remove the link\"", err)
	}
	if _, err := os.Lstat(victim); err == nil {
		t.Error("lockState has created the link's target")
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
