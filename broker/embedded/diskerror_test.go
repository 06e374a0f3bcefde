package embedded

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"peerlink/broker"
)

// ioFailure is SQLite's error for a disk that fails to write: it does not have the reason.
type ioFailure struct{}

func (ioFailure) Error() string { return "disk I/O error" }
func (ioFailure) Code() int     { return sqlite3.SQLITE_IOERR_WRITE }

// faultyDisk is an operation, part of every transaction, that fails while the disk does.
// Other writes beside the store fail with the reason.
type faultyDisk struct {
	store  *Store
	reason atomic.Pointer[syscall.Errno]
}

func (d *faultyDisk) fail() error {
	if reason := d.reason.Load(); reason != nil {
		return *reason
	}
	return nil
}

func (d *faultyDisk) options() Options {
	return Options{
		MinFree: 1 << 20, Reserve: 1 << 20, Service: true, diskCheckInterval: time.Millisecond,
		tryWriting: func(string, int) error { return d.fail() },
		writeReserve: func(path string, content []byte) error {
			if err := d.fail(); err != nil {
				return &os.PathError{Op: "write", Path: path, Err: err}
			}
			return writeReserve(path, content)
		},
	}
}

func (d *faultyDisk) apply(*tx) error {
	if d.fail() != nil {
		return ioFailure{}
	}
	return nil
}

func (d *faultyDisk) cost() (kind, quantity) { return maintenance, quantity{} }

// finish submits it again, as the first operation of the next transaction.
func (d *faultyDisk) finish(error) {
	w := d.store.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next = slices.Insert(w.next, 0, op(d))
}

// A disk that fails for a moment, for any reason, delays messages not much longer than
// that. Applications get the reason: missing space is reported only if it is the reason,
// and only then the reserve is removed, because nothing is stored before it is created
// again.
func TestResumesAfterDiskError(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		reason  syscall.Errno
		want    error
		reserve bool // the reserve stays
	}{
		{syscall.EDQUOT, ErrFull, false},
		{syscall.EIO, ErrUnwritable, true},
		{syscall.EROFS, ErrUnwritable, true},
	} {
		t.Run(test.reason.Error(), func(t *testing.T) {
			t.Parallel()
			d := &faultyDisk{}
			s := openFile(t, filepath.Join(t.TempDir(), "messages.db"), d.options())
			d.store = s
			declareTest(t, s, "q")
			d.finish(nil)
			d.reason.Store(&test.reason)
			for n := range 2 {
				err := s.Put(testContext(t), "q", broker.Outgoing{})
				if !errors.Is(err, test.want) || n == 0 && !errors.Is(err, test.reason) {
					t.Errorf("a message of an application is refused with %v, want %v, %v", err, test.want, test.reason)
				}
			}
			p, err := s.Publish(testContext(t), func(uint64, error) {})
			if err == nil {
				err = p.Publish(testContext(t), &broker.Incoming{Peer: "a", Exchange: "accounts_in"}) // blocks
			}
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "in trouble", func() bool { return errors.Is(s.Health(), test.reason) })
			if _, err := os.Stat(s.path + "-reserve"); (err == nil) != test.reserve {
				t.Errorf("the reserve: %v", err)
			}
			d.reason.Store(nil)
			good := time.Now()
			eventually(t, "stored", func() bool { return statsOf(t, s, "accounts_in").Depth == 1 })
			eventually(t, "free of trouble", func() bool { return s.Health() == nil })
			if took := time.Since(good); took > maxPause {
				t.Errorf("it took %v until messages were stored again", took)
			}
		})
	}
}

// The pause between attempts to create the reserve is never longer than that between
// attempts to write.
func TestReservePause(t *testing.T) {
	r := newReserve(filepath.Join(t.TempDir(), "messages.db"), 1)
	r.write = func(string, []byte) error { return syscall.EDQUOT }
	for range 10 {
		r.next = time.Time{}
		if err := r.renew(); !errors.Is(err, ErrFull) || !errors.Is(err, errNoReserve) {
			t.Fatal(err)
		}
		if pause := time.Until(r.next); pause > maxPause {
			t.Fatalf("the next attempt is in %v", pause)
		}
	}
	r.write, r.next = writeReserve, time.Time{}
	if err := r.renew(); err != nil || r.missing {
		t.Error(err)
	}
}

// When the disk fails and no more message is sent, the trouble lasts until a write
// succeeds.
func TestTroubleLasts(t *testing.T) {
	t.Parallel()
	d := &faultyDisk{}
	s := openFile(t, filepath.Join(t.TempDir(), "messages.db"), d.options())
	d.store = s
	declareTest(t, s, "q")
	reason := syscall.EIO
	d.reason.Store(&reason)
	put := make(chan error, 1)
	if err := s.writer.submit(&callOp{do: func(*tx) error { return ioFailure{} }, kind: sent, done: func(err error) { put <- err }}); err != nil {
		t.Fatal(err)
	}
	if err := <-put; !errors.Is(err, ErrUnwritable) {
		t.Error(err)
	}
	for end := time.Now().Add(2 * pollInterval); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if s.Health() == nil {
			t.Fatal("no trouble, while nothing can be written")
		}
	}
	d.reason.Store(nil)
	eventually(t, "free of trouble", func() bool { return s.Health() == nil })
}

// The trial never writes to a file that was there: a link in its place is replaced, and what
// it leads to stays.
func TestTrialFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	store, other := filepath.Join(dir, "messages.db"), filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, store+"-trial"); err != nil {
		t.Skipf("skipped: a symbolic link: %v", err)
	}
	if err := tryWriting(store, trialSize); err != nil {
		t.Error(err)
	}
	if content, err := os.ReadFile(other); err != nil || string(content) != "content" {
		t.Errorf("the other file has %d bytes, %v", len(content), err)
	}
	if _, err := os.Lstat(store + "-trial"); err == nil {
		t.Error("the trial file is left")
	}
}
