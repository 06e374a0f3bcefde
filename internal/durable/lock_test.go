package durable

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

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
		t.Error("locked twice")
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
					t.Error("two have the lock")
				}
				runtime.Gosched()
				holders.Add(-1)
				unlock()
			}
		})
	}
	running.Wait()
}

// Another user, who can open the folder but no files with restricted modes in it, can not
// block the owner's commands.
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

// A lock that root acquires for a node's user, by sudo, does not lock that user out if the
// command is killed: the remaining file belongs to the owner of the folder.
func TestLockByRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can lock for others: skipped")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	unlock, err := Lock(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	fi, err := os.Stat(filepath.Join(dir, lockFile))
	if err != nil {
		t.Fatal(err)
	}
	of, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !sameOwner(fi, of) || fi.Mode().Perm() != 0o600 {
		t.Errorf("the lock left by root can not be opened by the folder's owner: %v", fi.Mode())
	}
}
