package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"peerlink/internal/durable"

	"github.com/gofrs/flock"
)

const (
	// lockFile is the file in the state folder that is locked while a door is open. A
	// crash releases the lock.
	lockFile = "door.lock"
	// lockWait is how long lockDoor waits for clients that hold the lock for a moment, in
	// isOpen.
	lockWait = 2 * time.Second
)

// lockDoor locks the state folder. It returns errInUse if another door is open on it.
func lockDoor(stateDir string) (*flock.Flock, error) {
	l := durable.NewFlock(filepath.Join(stateDir, lockFile))
	ctx, cancel := context.WithTimeout(context.Background(), lockWait)
	defer cancel()
	ok, err := l.TryLockContext(ctx, 10*time.Millisecond)
	if ok {
		return l, nil
	}
	l.Close()
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("%w: %s is locked", errInUse, l.Path())
	}
	return nil, fmt.Errorf("lock the state folder: %w", durable.ExplainOpen(l.Path(), err))
}

// isOpen reports whether a door is open on the state folder.
func isOpen(stateDir string) (bool, error) {
	l := flock.New(filepath.Join(stateDir, lockFile), flock.SetFlag(os.O_RDONLY))
	defer l.Close()
	unlocked, err := l.TryRLock()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && !unlocked, err
}
