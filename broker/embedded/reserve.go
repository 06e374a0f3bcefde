package embedded

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"peerlink/internal/durable"
)

// reserve is a file that occupies disk space so that the space can be released: removing
// messages needs space too, in the write-ahead log, and must be possible after another
// program has filled the disk. The file is created again when there is space, and no
// message is stored before that.
type reserve struct {
	path    string
	size    int64     // in bytes; 0: there is no reserve
	missing bool      // the file should exist, and does not
	err     error     // why it could not be created, if not because of missing disk space
	next    time.Time // when creating it is tried again, after err
	pause   time.Duration

	write func(path string, content []byte) error
}

// errNoReserve is reported while no message is stored because the reserve can not be
// created.
var errNoReserve = errors.New("the reserve of the message store can not be made")

// If the reserve can not be created although the disk seems to have space for it, the next
// attempts follow after firstReservePause, then after twice as long each time, up to
// maxPause. No message is stored meanwhile.
const firstReservePause = time.Second

func newReserve(store string, size int64) reserve {
	r := reserve{path: store + "-reserve", size: size, write: writeReserve}
	if size > 0 {
		fi, err := os.Stat(r.path)
		r.missing = err != nil || fi.Size() != size
	}
	return r
}

func writeReserve(path string, content []byte) error { return durable.Replace(path, content, 0o600) }

// roomToOpen is how many bytes opening a store may need, including the files that a
// service writes beside it at its start.
const roomToOpen = 1 << 20

// makeRoomToOpen removes the reserve if there is no space to open the store. A store that
// another process has open needs none.
func makeRoomToOpen(store string, service bool) {
	if _, err := os.Stat(store + "-shm"); err == nil && !service {
		return
	}
	r := newReserve(store, 0)
	if _, err := os.Lstat(r.path); err != nil {
		return // there is no reserve to remove
	}
	free, err := freeBytes(filepath.Dir(store))
	if err == nil && free < roomToOpen || service && isNoRoom(tryWriting(store, roomToOpen)) {
		r.giveUp()
	}
}

// noRoomToOpen extends an error of opening if its reason is missing space.
func noRoomToOpen(store string, err error) error {
	free, e := freeBytes(filepath.Dir(store))
	noRoom := isFull(err) || isWriteError(err) || code(err)&0xff == sqlite3.SQLITE_CANTOPEN
	if e != nil || free >= roomToOpen || !noRoom {
		return err
	}
	return fmt.Errorf("%w: the disk is full: %d bytes are free, and %d are needed to open the store; make room for it on the disk of %s, then messages can be taken out and dropped: %w",
		ErrFull, free, roomToOpen, filepath.Dir(store), err)
}

// leave creates a small reserve when the store is closed without one, in the space that
// the write-ahead log occupied, so that the store can be opened on a full disk.
func (r *reserve) leave() {
	if !r.missing {
		return
	}
	small := reserve{path: r.path, size: min(r.size, 4*roomToOpen), missing: true, write: r.write}
	if small.renew() != nil {
		small.size, small.next = min(r.size, roomToOpen), time.Time{}
		_ = small.renew()
	}
}

// giveUp removes the file, even if another process has created it.
func (r *reserve) giveUp() {
	_ = os.Remove(r.path)
	r.missing = r.size > 0
}

// renew creates the file if it is missing. Its content is random, since some file systems
// allocate no blocks for zeros.
func (r *reserve) renew() error {
	if !r.missing {
		return nil
	}
	if time.Now().Before(r.next) {
		return r.err
	}
	content := make([]byte, r.size)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(content)
	err := r.write(r.path, content)
	r.missing, r.err, r.next = err != nil, nil, time.Time{}
	switch {
	case err == nil:
		r.pause = 0
		return nil
	case errors.Is(err, syscall.ENOSPC):
		return err // the free space is checked before renew is called
	case isNoRoom(err): // statfs does not account for a user's quota
		r.err = fmt.Errorf("%w: %w: %w", ErrFull, errNoReserve, err)
	default:
		r.err = fmt.Errorf("%w: %w", errNoReserve, err)
	}
	r.pause = min(max(2*r.pause, firstReservePause), maxPause)
	r.next = time.Now().Add(r.pause)
	return r.err
}

// lookFor detects that another process has removed the reserve.
func (r *reserve) lookFor() {
	if _, err := os.Stat(r.path); r.size > 0 && errors.Is(err, os.ErrNotExist) {
		r.missing = true
	}
}
