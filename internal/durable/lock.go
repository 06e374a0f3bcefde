package durable

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"
)

// LockWait is how long [Lock] waits for somebody else to finish.
const LockWait = 10 * time.Second

// lockFile is the file that is locked, in the folder that is meant.
const lockFile = ".lock"

// Lock keeps other processes that lock the same folder waiting until the
// returned function is called.
//
// It locks a file in the folder that only its owner can open. A lock on what other
// users can open, such as the folder itself, could be held by them for ever. The
// file is removed with the lock, since operators keep such folders under git;
// one that a crash has left behind is used by the next process. One that root makes
// belongs to the folder's owner, who could not open it otherwise if the process
// is killed.
func Lock(ctx context.Context, dir string) (unlock func(), err error) {
	path := filepath.Join(dir, lockFile)
	deadline := time.NewTimer(LockWait)
	defer deadline.Stop()
	for {
		unlock, err := tryLock(path)
		// Without permission: it is another user's, who has locked it or was killed.
		_, there := os.Lstat(path)
		if unlock != nil || err != nil && !(errors.Is(err, fs.ErrPermission) && there == nil) {
			return unlock, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
			continue
		case <-deadline.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("another user's command is working on %s, or has left its lock there: try again when it is done; if there is none, remove %s", dir, path)
		}
		return nil, fmt.Errorf("another command is working on %s: try again when it is done", dir)
	}
}

// tryLock returns nil if another process has the lock.
func tryLock(path string) (unlock func(), err error) {
	makeLockFile(path)
	l := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
	locked, err := l.TryLock()
	if err == nil && locked {
		locked, err = isAt(l, path)
	}
	if err != nil || !locked {
		l.Close()
		if err != nil {
			err = fmt.Errorf("lock %s: %w", filepath.Dir(path), err)
		}
		return nil, err
	}
	return func() {
		if runtime.GOOS != "windows" { // where a file that is open can not be removed
			os.Remove(path)
		}
		l.Close()
	}, nil
}

// makeLockFile makes the file, unless there is one, for the owner of the folder.
// Only a file that is certainly new may be given away: what another user has put
// there could be a link to a file of root's.
func makeLockFile(path string) {
	if os.Geteuid() != 0 {
		return
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return // what is wrong is seen when it is locked
	}
	keepOwner(f, filepath.Dir(path))
	f.Close()
}

// isAt reports whether the locked file is still the one at path: the process that
// had the lock before has removed its file.
func isAt(l *flock.Flock, path string) (bool, error) {
	locked, err := l.Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(locked, now), err
}
