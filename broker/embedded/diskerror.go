package embedded

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	sqlite3 "modernc.org/sqlite/lib"
)

// ioError is a write error of SQLite together with the operating system's reason, which is
// not missing space.
type ioError struct{ err, reason error }

func (e *ioError) Error() string   { return fmt.Sprintf("%v: %v", e.err, e.reason) }
func (e *ioError) Unwrap() []error { return []error{e.err, e.reason} }

// trialSize is how many bytes a write test writes.
const trialSize = 64 << 10

// tryWriting writes, syncs and removes a file beside the store. It returns the reason if
// that fails.
func tryWriting(store string, size int) error {
	content := make([]byte, size)
	_, _ = rand.Read(content) // some file systems allocate no blocks for zeros
	name := store + "-trial"
	_ = os.Remove(name) // left by a process that was killed
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return reasonOf(err)
	}
	defer os.Remove(name)
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return reasonOf(errors.Join(err, f.Close()))
}

// reasonOf returns the operating system's error in err, without the name of a file.
func reasonOf(err error) error {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return errno
	}
	return err
}

// isNoRoom reports whether an operating system error means that the disk, or the user's
// quota on it, is full.
func isNoRoom(err error) bool {
	return slices.ContainsFunc(noRoomErrors, func(e error) bool { return errors.Is(err, e) })
}

// isFull reports whether an error means that there is no space for a write.
func isFull(err error) bool {
	return errors.Is(err, ErrFull) || isNoRoom(err) || code(err)&0xff == sqlite3.SQLITE_FULL
}

// isWriteError reports whether SQLite failed to write, sync or extend a file. The code
// does not distinguish missing space, as with a quota, from other reasons.
func isWriteError(err error) bool {
	switch code(err) {
	case sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_TRUNCATE,
		sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMMAP, sqlite3.SQLITE_IOERR_SHMOPEN:
		return true
	}
	return false
}

// canRemove reports whether, after err has failed an operation that stores messages,
// operations of kind maintenance may still succeed.
func canRemove(err error) bool {
	return isFull(err) || isWriteError(err) || errors.Is(err, errNoReserve)
}

// withReason adds the operating system's reason to a write error of SQLite without one.
func (w *writer) withReason(err error) error {
	if !isWriteError(err) || isFull(err) {
		return err
	}
	w.pulse.Beat()
	switch reason := w.tryWriting(); {
	case isNoRoom(reason):
		return fmt.Errorf("%w: %w: %w", ErrFull, err, reason)
	case reason != nil:
		return &ioError{err, reason}
	}
	if free, e := w.disk.freeBytes(); e == nil && free < roomToOpen {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// isDiskFault reports whether a write error is known to have another reason than missing
// space.
func isDiskFault(err error) bool {
	var fault *ioError
	return errors.As(err, &fault)
}
