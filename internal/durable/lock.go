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

// lockWait is how long [Lock] waits for the lock.
const lockWait = 10 * time.Second

// lockFile is the file that is locked, in the folder to lock.
const lockFile = ".lock"

// HasLockFile reports whether dir has a file of [Lock]: a command is working on the
// directory, or was killed. If that can not be determined, the result is true.
func HasLockFile(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, lockFile))
	return !errors.Is(err, fs.ErrNotExist)
}

// Lock acquires a lock among the processes that lock the same folder, until the returned
// function is called. It waits for the lock for up to 10 seconds, or until ctx is done.
//
// It locks a file in the folder that only the folder's owner can open. Other users could
// hold a lock on a file that they can open, such as the folder itself, for ever. The file
// is removed with the lock, since operators keep such folders under git; a file that
// remains after a crash is used by the next process. A symbolic link in its place is an
// error.
func Lock(ctx context.Context, dir string) (unlock func(), err error) {
	path := filepath.Join(dir, lockFile)
	deadline := time.NewTimer(lockWait)
	defer deadline.Stop()
	for {
		unlock, err := tryLock(path)
		// Without permission: the file belongs to another user, whose process holds the
		// lock or was killed.
		_, statErr := os.Lstat(path)
		if unlock != nil || err != nil && !(errors.Is(err, fs.ErrPermission) && statErr == nil) {
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

// NewFlock returns a lock on the file at path, which is created with access for its owner only.
// A symbolic link there is an error, see [ExplainOpen].
func NewFlock(path string) *flock.Flock {
	return flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR|NoFollow), flock.SetPermissions(0o600))
}

// ExplainOpen returns what to do if err, of opening the file at path with [NoFollow], is due to a
// symbolic link there or to missing inodes, and err otherwise.
func ExplainOpen(path string, err error) error {
	if fi, statErr := os.Lstat(path); err != nil && statErr == nil && fi.Mode()&fs.ModeSymlink != 0 {
		return fmt.Errorf("%s must not be a symbolic link: remove the link", path)
	}
	return ExplainFull(filepath.Dir(path), err)
}

// tryLock acquires the lock. If another process holds it, unlock and err are nil.
func tryLock(path string) (unlock func(), err error) {
	l := NewFlock(path)
	locked, err := l.TryLock()
	if err == nil && locked {
		locked, err = isAt(l, path)
	}
	if err != nil || !locked {
		l.Close()
		if err != nil {
			err = fmt.Errorf("lock %s: %w", filepath.Dir(path), ExplainOpen(path, err))
		}
		return nil, err
	}
	return func() {
		if runtime.GOOS != "windows" { // where an open file can not be removed
			os.Remove(path)
		}
		l.Close()
	}, nil
}

// isAt reports whether the locked file is still the one at path: the previous holder of
// the lock removes its file.
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
