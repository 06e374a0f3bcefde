package embedded

import (
	"math/rand/v2"
	"os"
	"path/filepath"

	"peerlink/internal/durable"
)

// Removing messages needs space in the write-ahead log, and the shared memory of SQLite, "-shm". If
// another program uses up whatever is free on the disk, space that the store gives up is lost. So it
// holds what it needs for removing in these two files, and gives it up only while there is enough space:
//
//   - A service makes the log at least keptWAL bytes long when it opens the store, and the log is never
//     truncated below that while the store is open. SQLite overwrites what is in it.
//   - Overwriting is possible once all transactions in the log were copied to the file, which needs no
//     space for pages that the file has already. So while the disk has little space, a transaction that
//     stores messages is copied immediately, and later ones only remove.
//   - The reserve is removed only after removing has failed with a log that was restarted.
//   - If the disk has little space when the store is closed, log and shared memory stay as they are.
//   - If it has little space when the store is opened, keepSharedMemory prevents SQLite from
//     truncating the shared memory.

// maxKeptWAL bounds keptWAL. A transaction that removes some hundred messages needs less.
const maxKeptWAL = 1 << 20

// keptWAL returns the size in bytes to which the write-ahead log is truncated. Another process than
// the service must not truncate the service's log below that.
func keptWAL(o Options) int64 {
	if o.MinFree <= 0 && o.Service {
		return 0
	}
	if o.MinFree <= 0 {
		return maxKeptWAL
	}
	return min(maxKeptWAL, windowOf(o.MinFree)/4) // less than walLimit
}

// scarceSpace is how many bytes must be free on a disk for a store to give up the space of its log when
// it is closed, unless MinFree is more.
const scarceSpace = 16 * spaceToOpen

// isSpaceScarce reports whether the disk of a store is known to have little space.
func isSpaceScarce(store string, o Options) bool {
	free, err := o.freeBytes(filepath.Dir(store))
	return err == nil && free < max(o.MinFree, scarceSpace)
}

// keepWALIfScarce makes SQLite keep the write-ahead log as it is when the connection is closed, if the
// disk has little space, and reports whether it has little space.
func (w *writeConn) keepWALIfScarce() bool {
	if !w.isSpaceScarce() {
		return false
	}
	_ = w.limitWAL(-1) // with a limit, the last connection truncates the log
	return true
}

// restartWAL checkpoints and restarts the write-ahead log, so that its space is reused.
// Errors are ignored, as those of most calls of truncateWAL: SQLite then keeps the log, and copies
// its pages to the file again in the next checkpoint.
func (w *writeConn) restartWAL() { _, _ = w.checkpointRestart.number() }

// copyWALIfShort copies the transactions in the write-ahead log to the file if the disk has little space, as
// far as no reader prevents it. If another program then fills the disk, the log can be restarted.
func (w *writer) copyWALIfShort() {
	if w.disk.isShort() {
		_, _ = w.db.checkpointPassive.number()
	}
}

// growWAL makes the write-ahead log at least w.keptWAL bytes long.
func (w *writeConn) growWAL() error {
	if w.walBytes() >= w.keptWAL {
		return nil
	}
	// The log begins with a header after a transaction.
	if err := w.commitChange(func() error { return nil }); err != nil {
		return err
	}
	if err := w.start(); err != nil { // no connection appends to the log now
		return err
	}
	defer w.undo()
	f, err := os.OpenFile(w.walPath, os.O_WRONLY|os.O_APPEND|durable.NoFollow, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(randomContent(w.keptWAL - w.walBytes()))
	return err
}

// randomContent returns bytes that take as much space as they are: some file systems allocate no blocks
// for zeros. SQLite ignores them at the end of a write-ahead log.
func randomContent(size int64) []byte {
	content := make([]byte, max(size, 0))
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(content)
	return content
}
