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

// ioError is an error of SQLite when it writes, with the reason that the operating
// system gives, which is not want of room.
type ioError struct{ err, reason error }

func (e *ioError) Error() string   { return fmt.Sprintf("%v: %v", e.err, e.reason) }
func (e *ioError) Unwrap() []error { return []error{e.err, e.reason} }

// trialSize is how many bytes a trial writes.
const trialSize = 64 << 10

// tryWriting writes a file beside the store, syncs and removes it. It returns the
// reason why that is not possible.
func tryWriting(store string, size int) error {
	content := make([]byte, size)
	_, _ = rand.Read(content) // some file systems keep zeros in no room at all
	f, err := os.OpenFile(store+"-trial", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return reasonOf(err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return reasonOf(errors.Join(err, f.Close()))
}

// reasonOf returns what the operating system says in an error, without the name of a file.
func reasonOf(err error) error {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return errno
	}
	return err
}

// isNoRoom reports whether an error of the operating system means that the disk, or the
// user's quota on it, is full.
func isNoRoom(err error) bool {
	return slices.ContainsFunc(noRoomErrors, func(e error) bool { return errors.Is(err, e) })
}

// isFull reports whether an error means that there is no room for what was to be
// written.
func isFull(err error) bool {
	return errors.Is(err, ErrFull) || isNoRoom(err) || code(err)&0xff == sqlite3.SQLITE_FULL
}

// isWriteError reports whether SQLite could not write, sync or extend a file. It does
// not say whether that is for want of room, such as a quota, or another reason.
func isWriteError(err error) bool {
	switch code(err) {
	case sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_TRUNCATE,
		sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMMAP, sqlite3.SQLITE_IOERR_SHMOPEN:
		return true
	}
	return false
}

// canRemove reports whether what removes, moves or binds may be written after an error
// with which what stores was not.
func canRemove(err error) bool {
	return isFull(err) || isWriteError(err) || errors.Is(err, errNoReserve)
}

// withReason finds the reason of an error of writing where SQLite gives none.
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

// isDiskFault reports whether an error of writing is known to have another reason than
// want of room.
func isDiskFault(err error) bool {
	var fault *ioError
	return errors.As(err, &fault)
}
