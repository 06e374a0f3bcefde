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
	err     error     // why it could not be made, if not for want of room
	next    time.Time // when that is tried again, after err
}

// reservePause is the time between attempts to make a reserve where it is not room
// that is missing.
const reservePause = 30 * time.Second

func newReserve(store string, size int64) reserve {
	r := reserve{path: store + "-reserve", size: size}
	if size > 0 {
		fi, err := os.Stat(r.path)
		r.missing = err != nil || fi.Size() != size
	}
	return r
}

// roomToOpen is how many bytes opening a store may take, with what a service
// writes beside it when it starts.
const roomToOpen = 1 << 20

// makeRoomToOpen gives the reserve up if there is no room to open the store. A store
// that another process has open needs none.
func makeRoomToOpen(store string, service bool) {
	if _, err := os.Stat(store + "-shm"); err == nil && !service {
		return
	}
	if free, err := freeBytes(filepath.Dir(store)); err == nil && free < roomToOpen {
		r := newReserve(store, 0)
		r.giveUp()
	}
}

// noRoomToOpen says it in an error of opening if that is for want of room.
func noRoomToOpen(store string, err error) error {
	free, e := freeBytes(filepath.Dir(store))
	noRoom := isFull(err) || code(err)&0xff == sqlite3.SQLITE_CANTOPEN || errors.Is(err, syscall.ENOSPC)
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
	small := reserve{path: r.path, size: min(r.size, 4*roomToOpen), missing: true}
	if small.renew() != nil {
		small.size = min(r.size, roomToOpen)
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
	if r.err != nil && time.Now().Before(r.next) {
		return r.err
	}
	content := make([]byte, r.size)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(content)
	err := durable.Replace(r.path, content, 0o600)
	r.missing, r.err = err != nil, nil
	if err != nil && !errors.Is(err, syscall.ENOSPC) {
		r.err, r.next = fmt.Errorf("the reserve of the message store can not be made: %w", err), time.Now().Add(reservePause)
	}
	return err
}

// lookFor notices that another process has given the file up.
func (r *reserve) lookFor() {
	if _, err := os.Stat(r.path); r.size > 0 && errors.Is(err, os.ErrNotExist) {
		r.missing = true
	}
}
