package durable

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofrs/flock"
)

// A lock is held once at a time, can be acquired again, and leaves no file.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	unlock, err := Lock(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(filepath.Join(dir, lockFile)); err != nil || runtime.GOOS != "windows" && fi.Mode().Perm() != 0o600 {
		t.Errorf("the locked file: %v, %v", fi, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Lock(ctx, dir); err == nil {
		t.Error("Lock succeeded while the lock was held")
	}
	unlock()
	if runtime.GOOS != "windows" && left(t, dir) != "" {
		t.Errorf("the folder has %q", left(t, dir))
	}
	// A file that remains after a crash does not prevent locking.
	if err := os.WriteFile(filepath.Join(dir, lockFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if unlock, err = Lock(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	unlock()
}

// Of many concurrent processes that lock repeatedly, one at a time holds the lock,
// although each removes the locked file.
func TestLockIsExclusive(t *testing.T) {
	dir := t.TempDir()
	var running sync.WaitGroup
	var holders atomic.Int32
	for range 8 {
		running.Go(func() {
			for range 20 {
				unlock, err := Lock(context.Background(), dir)
				if err != nil {
					t.Error(err)
					return
				}
				if holders.Add(1) != 1 {
					t.Error("two goroutines hold the lock")
				}
				runtime.Gosched()
				holders.Add(-1)
				unlock()
			}
		})
	}
	running.Wait()
}

// Another user, who can open the folder but no files with restricted modes in it, cannot
// block the owner's commands with a lock on the folder.
func TestLockOfOthers(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows can not lock folders: skipped")
	}
	dir := t.TempDir()
	theirs := flock.New(dir, flock.SetFlag(os.O_RDONLY))
	if ok, err := theirs.TryLock(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	defer theirs.Close()
	unlock, err := Lock(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// A symbolic link in place of the lock file is not followed: its target is not created.
func TestLockThroughLink(t *testing.T) {
	dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "nologin")
	if err := os.Symlink(victim, filepath.Join(dir, lockFile)); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	if NoFollow == 0 {
		t.Skip("this system opens symbolic links: skipped")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if unlock, err := Lock(ctx, dir); err == nil {
		unlock()
		t.Error("Lock succeeded through a symbolic link")
	}
	if _, err := os.Lstat(victim); err == nil {
		t.Error("Lock has created the link's target")
	}
}
