package embedded

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	sqlite3 "modernc.org/sqlite/lib"

	"peerlink/internal/durable"
)

// ioError is an error of writing together with the operating system's reason, which is not
// missing space.
type ioError struct{ err, reason error }

func (e *ioError) Error() string   { return fmt.Sprintf("%v: %v", e.err, e.reason) }
func (e *ioError) Unwrap() []error { return []error{e.err, e.reason} }

// errTrial is returned, with the operating system's reason, if tryWriting fails and no
// transaction has failed before it.
var errTrial = errors.New("a file beside the message store can not be written")

// A trial (see tryWriting) writes at least minTrial bytes, which is more than a transaction
// with a small message writes, and at most maxTrial.
const minTrial, maxTrial = 64 << 10, 1 << 20

// trialSize returns how many bytes a trial writes for a transaction that stores messages
// of this size: they are written to the write-ahead log and then to the file.
func trialSize(bytes int64) int { return int(min(minTrial+2*bytes, maxTrial)) }

// trialInfix is in the names of files that tryWriting creates, after the name of the store
// and before a random number.
const trialInfix = "-trial-"

// tryWriting writes, syncs and removes a file beside the store. It returns the reason if
// that fails.
func tryWriting(store string, size int) error {
	content := make([]byte, size)
	_, _ = rand.Read(content) // some file systems allocate no blocks for zeros
	f, err := os.CreateTemp(filepath.Dir(store), filepath.Base(store)+trialInfix+"*")
	if err != nil {
		return durable.ExplainFull(filepath.Dir(store), reasonOf(err))
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return reasonOf(errors.Join(err, f.Close()))
}

// removeTrials removes the files that tryWriting has left beside the store, in processes
// that were killed.
func removeTrials(store string) {
	dir, prefix := filepath.Dir(store), filepath.Base(store)+trialInfix
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), prefix)
		if ok && strings.Trim(number, "0123456789") == "" && e.Type().IsRegular() {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// reasonOf returns the operating system's error in err, without the name of a file, or err if it
// has none.
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

// isFull reports whether an error means that there is no space for a write. Some errors for
// which it returns false may have the same reason: see isWriteError.
func isFull(err error) bool {
	return errors.Is(err, ErrFull) || isNoRoom(err) || code(err)&0xff == sqlite3.SQLITE_FULL
}

// isWriteError reports whether SQLite failed to write, sync or resize a file, or to open, map or use
// "-shm". The code does not distinguish missing space, as with a quota, from other reasons.
func isWriteError(err error) bool {
	switch code(err) {
	case sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_TRUNCATE,
		sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMMAP, sqlite3.SQLITE_IOERR_SHMOPEN,
		sqlite3.SQLITE_IOERR_IN_PAGE:
		return true
	}
	return false
}

// allowsMaintenance reports whether, after an operation that stores messages has failed with
// err, operations of the kind maintenance may still succeed.
func allowsMaintenance(err error) bool {
	return isFull(err) || isWriteError(err) || isDiskFault(err) || errors.Is(err, errNoReserve)
}

// findReason looks for the operating system's reason of a write error of SQLite that has none,
// by a trial (see writeTrial), and returns err with the reason. If it finds none, it returns
// [ErrFull] if the disk is almost full, and sets w.ioFailed otherwise. It returns other errors,
// and nil, unchanged. bytes is the size of the messages that the failed transaction was to store.
func (w *writer) findReason(err error, bytes int64) error {
	if !isWriteError(err) || isFull(err) {
		return err
	}
	if reason := w.writeTrial(err, bytes); reason != nil {
		return reason
	}
	if free, e := w.disk.freeBytes(); e == nil && free < spaceToOpen {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	w.ioFailed = true // there is enough space
	return err
}

// writeTrial writes a file beside the store, as for a transaction that stores messages of this
// size in bytes. If that fails, it returns err with the reason, otherwise nil.
func (w *writer) writeTrial(err error, bytes int64) error {
	w.pulse.Beat()
	return addReason(err, w.tryWriting(trialSize(bytes)))
}

// addReason returns err with the reason that a trial has found, or nil if it has found
// none.
func addReason(err, reason error) error {
	switch {
	case reason == nil:
		return nil
	case isNoRoom(reason):
		return fmt.Errorf("%w: %w: %w", ErrFull, err, reason)
	}
	return &ioError{err, reason}
}

// isDiskFault reports whether a write error is known to have another reason than missing
// space.
func isDiskFault(err error) bool {
	var fault *ioError
	return errors.As(err, &fault)
}
