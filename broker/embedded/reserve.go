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

// reserve is a file that takes room on the disk so that it can be given up:
// removing messages needs room too, in the write-ahead log, and must be possible
// when another program has filled the disk. It is made again when there is room,
// and nothing is stored before that.
type reserve struct {
	path    string
	size    int64     // 0: none is made
	missing bool      // it should be there, and is not
	err     error     // why it could not be made, if not for want of room on the disk
	next    time.Time // when that is tried again, after err
	pause   time.Duration

	write func(path string, content []byte) error
}

// errNoReserve is why nothing is stored while a reserve can not be made.
var errNoReserve = errors.New("the reserve of the message store can not be made")

// A reserve that can not be made, although the disk seems to have room for it, is tried
// again after firstReservePause, then after twice as long each time, up to maxPause.
// Nothing is stored meanwhile.
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

// roomToOpen is how many bytes opening a store may take, with what a service
// writes beside it when it starts.
const roomToOpen = 1 << 20

// makeRoomToOpen gives the reserve up if there is no room to open the store. A store
// that another process has open needs none.
func makeRoomToOpen(store string, service bool) {
	if _, err := os.Stat(store + "-shm"); err == nil && !service {
		return
	}
	r := newReserve(store, 0)
	if _, err := os.Lstat(r.path); err != nil {
		return // there is nothing to give up
	}
	free, err := freeBytes(filepath.Dir(store))
	if err == nil && free < roomToOpen || service && isNoRoom(tryWriting(store, roomToOpen)) {
		r.giveUp()
	}
}

// noRoomToOpen says it in an error of opening if that is for want of room.
func noRoomToOpen(store string, err error) error {
	free, e := freeBytes(filepath.Dir(store))
	noRoom := isFull(err) || isWriteError(err) || code(err)&0xff == sqlite3.SQLITE_CANTOPEN
	if e != nil || free >= roomToOpen || !noRoom {
		return err
	}
	return fmt.Errorf("%w: the disk is full: %d bytes are free, and %d are needed to open the store; make room for it on the disk of %s, then messages can be taken out and dropped: %w",
		ErrFull, free, roomToOpen, filepath.Dir(store), err)
}

// leave makes a small reserve when the store is closed without one, of the room that
// its write-ahead log had, so that the store can be opened on a full disk.
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

// giveUp removes the file, also that of another process.
func (r *reserve) giveUp() {
	_ = os.Remove(r.path)
	r.missing = r.size > 0
}

// renew makes the file if it is missing. Its content is random, since some file
// systems keep zeros in no room at all.
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
		return err // how much is free is looked at before
	case isNoRoom(err): // a quota does not show in what is free
		r.err = fmt.Errorf("%w: %w: %w", ErrFull, errNoReserve, err)
	default:
		r.err = fmt.Errorf("%w: %w", errNoReserve, err)
	}
	r.pause = min(max(2*r.pause, firstReservePause), maxPause)
	r.next = time.Now().Add(r.pause)
	return r.err
}

// lookFor notices that another process has given the file up.
func (r *reserve) lookFor() {
	if _, err := os.Stat(r.path); r.size > 0 && errors.Is(err, os.ErrNotExist) {
		r.missing = true
	}
}
