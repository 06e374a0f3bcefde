package embedded

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"peerlink/internal/durable"
)

// reserve is a file that occupies disk space. It is deleted when another program has filled
// the disk: removing messages needs space too, in the write-ahead log. The file is created
// again when there is space, and no message is stored before that.
type reserve struct {
	path    string
	size    int64         // in bytes; 0: none is to be created
	missing bool          // there is no file, or one of another size
	err     error         // why the last attempt to create it has failed; nil if it succeeded, or there was none
	nextTry time.Time     // when creating it is tried again, after err
	pause   time.Duration // between the last failed attempt and nextTry

	write func(path string, content []byte) error
}

// errNoReserve is returned for a failed attempt to create the reserve, and while no message is
// stored because of it.
var errNoReserve = errors.New("the reserve of the message store can not be made")

// If the reserve cannot be created although the disk seems to have space for it, the next
// attempt follows after firstReservePause, and further ones after twice as long each time,
// up to maxPause. No message is stored meanwhile.
const firstReservePause = time.Second

func newReserve(store string, size int64) reserve {
	r := reserve{path: store + "-reserve", size: size, write: writeReserve}
	if size > 0 {
		fi, err := os.Stat(r.path)
		r.missing = err != nil || fi.Size() != size
	}
	return r
}

// writeReserve creates or replaces the file. It replaces a symbolic link at path instead of
// following it. Otherwise whoever can create a link there could make the service overwrite any
// file of its user.
func writeReserve(path string, content []byte) error {
	return durable.ReplaceName(path, content, 0o600)
}

// spaceToOpen is how many bytes opening a store may need.
const spaceToOpen = 1 << 20

// makeRoomToOpen removes the reserve if err, an error of opening the store, means that there
// is no space, and reports whether it has removed it. A process other than a service leaves the
// reserve of a store that another process has open: it needs no space to open such a store.
func (o Options) makeRoomToOpen(store string, err error) bool {
	if _, e := os.Stat(store + "-shm"); e == nil && !o.Service {
		return false
	}
	r := newReserve(store, 0)
	if _, e := os.Lstat(r.path); e != nil || !errors.Is(o.openError(store, err), ErrFull) {
		return false
	}
	r.remove()
	return true
}

// openError adds the reason and advice for the operator to an error of opening a store, if the
// reason is missing space, or whyNotOpened finds one. Little free space alone is not considered
// the reason: if there is another one, removing the reserve would not help.
func (o Options) openError(store string, err error) error {
	if !isFull(err) && !isWriteError(err) && !isAccessError(err) {
		return explain(err)
	}
	var reason error
	if !isFull(err) {
		reason = o.whyNotOpened(store, err)
	}
	switch {
	case isNoRoom(reason):
		err = fmt.Errorf("%w: %w", err, reason)
		fallthrough
	case isFull(err):
		dir := filepath.Dir(store)
		full := "the disk, or the quota of this user on it, is full"
		if free, e := o.freeBytes(dir); e == nil && free < spaceToOpen {
			full = fmt.Sprintf("the disk is full: %d bytes are free, and %d are needed to open the store", free, spaceToOpen)
		}
		if errors.Is(err, durable.ErrNoInodes) {
			full = "the files that opening the store needs can not be made"
		}
		return fmt.Errorf("%w: %s; make room for it on the disk of %s, then the store can be opened: %w", ErrFull, full, dir, err)
	case reason == nil, errors.Is(reason, fs.ErrPermission), errors.Is(reason, syscall.EROFS):
		err = explain(err)
	}
	return cmp.Or(addReason(err, reason), err)
}

// whyNotOpened returns the operating system's reason why opening a store has failed with
// err, a write or access error, or nil if it finds none.
func (o Options) whyNotOpened(store string, err error) error {
	if isAccessError(err) {
		for _, file := range []string{store, store + "-wal", store + "-shm"} {
			if reason := checkAccess(file); reason != nil && !errors.Is(reason, fs.ErrNotExist) {
				return reasonOf(reason)
			}
		}
	}
	return o.tryWriting(store, spaceToOpen)
}

// createAtClose creates a small reserve if the reserve is missing when the store is closed, so that
// the store can be opened on a full disk.
func (r *reserve) createAtClose() {
	if !r.missing {
		return
	}
	small := reserve{path: r.path, size: min(r.size, 4*spaceToOpen), missing: true, write: r.write}
	if small.create() != nil {
		small.size, small.nextTry = min(r.size, spaceToOpen), time.Time{}
		_ = small.create()
	}
}

// remove removes the file, even if another process has created it.
func (r *reserve) remove() {
	_ = os.Remove(r.path)
	r.missing = r.size > 0
}

// create creates the file if it is missing, unless the pause after the last failure is not
// over.
func (r *reserve) create() error {
	if !r.missing {
		return nil
	}
	if time.Now().Before(r.nextTry) {
		return r.err
	}
	err := r.write(r.path, randomContent(r.size))
	r.missing, r.err, r.nextTry = err != nil, nil, time.Time{}
	switch {
	case err == nil:
		r.pause = 0
		return nil
	case isNoRoom(err): // the free space was checked, but it does not account for a user's quota
		r.err = fmt.Errorf("%w: %w: %w", ErrFull, errNoReserve, err)
	default:
		r.err = fmt.Errorf("%w: %w", errNoReserve, err)
	}
	r.pause = min(max(2*r.pause, firstReservePause), maxPause)
	r.nextTry = time.Now().Add(r.pause)
	return r.err
}

// detectRemoval sets r.missing if another process has removed the file.
func (r *reserve) detectRemoval() {
	if _, err := os.Stat(r.path); r.size > 0 && errors.Is(err, os.ErrNotExist) {
		r.missing = true
	}
}
