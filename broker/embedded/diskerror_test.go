package embedded

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// faultyDisk is an operation, part of every transaction, that fails while reason is set.
// Writes to other files beside the store fail with the reason.
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

// finish submits the operation again, as the first one of the next transaction.
func (d *faultyDisk) finish(error) {
	w := d.store.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	w.batch = slices.Insert(w.batch, 0, op(d))
}

// If a disk fails for a short time, for any reason, messages are delayed not much longer
// than it fails. Applications get the reason: missing space is reported only if it is
// the reason, and only then the reserve is removed, because nothing is stored before it
// is created again.
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
			eventually(t, "the problem", func() bool { return errors.Is(s.Health(), test.reason) })
			if _, err := os.Stat(s.path + "-reserve"); (err == nil) != test.reserve {
				t.Errorf("the reserve exists: %v, want %v", err == nil, test.reserve)
			}
			d.reason.Store(nil)
			good := time.Now()
			eventually(t, "stored", func() bool { return statsOf(t, s, "accounts_in").Depth == 1 })
			eventually(t, "the end of the problem", func() bool { return s.Health() == nil })
			if took := time.Since(good); took > 5*time.Second {
				t.Errorf("it took %v until messages were stored again", took)
			}
		})
	}
}

// If SQLite can not write, and another write succeeds, the disk is full if almost nothing
// is free on it; otherwise, or if the free space is unknown, the error stays what it was.
func TestWriteErrorOnFullDisk(t *testing.T) {
	unknown := errors.New("unknown")
	for _, tt := range []struct {
		free int64
		err  error
		full bool
	}{
		{spaceToOpen - 1, nil, true},
		{spaceToOpen, nil, false},
		{0, unknown, false},
	} {
		s := openTest(t, Options{
			tryWriting: func(string, int) error { return nil },
			freeBytes:  func(string) (int64, error) { return tt.free, tt.err },
		})
		err := s.writer.findReason(ioFailure{}, 0)
		if errors.Is(err, ErrFull) != tt.full || !errors.Is(err, ioFailure{}) {
			t.Errorf("%d bytes are free (%v): got %v, want a full disk: %v", tt.free, tt.err, err, tt.full)
		}
	}
}

// A store that is closed without a reserve creates as large a one as there is space for:
// first one of four times the size that opening needs, and if that fails, one of a quarter
// of this size.
func TestSmallReserve(t *testing.T) {
	for free, want := range map[int]int64{4 * spaceToOpen: 4 * spaceToOpen, 4*spaceToOpen - 1: spaceToOpen} {
		r := newReserve(filepath.Join(t.TempDir(), "messages.db"), 16*spaceToOpen)
		r.missing = true
		r.write = func(path string, content []byte) error {
			if len(content) > free {
				return syscall.ENOSPC
			}
			return writeReserve(path, content)
		}
		r.createAtClose()
		if info, err := os.Stat(r.path); err != nil || info.Size() != want {
			t.Errorf("with %d bytes free: got %v, %v, want %d bytes", free, info, err, want)
		}
	}
}

// The pause between attempts to create the reserve is never longer than that between
// attempts to write.
func TestReservePause(t *testing.T) {
	r := newReserve(filepath.Join(t.TempDir(), "messages.db"), 1)
	r.write = func(string, []byte) error { return syscall.EDQUOT }
	for range 10 {
		r.nextTry = time.Time{}
		if err := r.create(); !errors.Is(err, ErrFull) || !errors.Is(err, errNoReserve) {
			t.Fatal(err)
		}
		if pause := time.Until(r.nextTry); pause > maxPause {
			t.Fatalf("the next attempt is in %v", pause)
		}
	}
	r.write, r.nextTry = writeReserve, time.Time{}
	if err := r.create(); err != nil || r.missing {
		t.Error(err)
	}
}

// refuseOnce fails one transaction with an error, in which an application stores a message
// of a size, and returns the error for the application.
func refuseOnce(t *testing.T, s *Store, err error, size int) error {
	t.Helper()
	part, e := s.writer.applicationBudget.acquire(testContext(t), 1, size)
	if e != nil {
		t.Fatal(e)
	}
	return s.commitOp(testContext(t), callOp{do: func(*tx) error { return err }, kind: fromApplication, part: part})
}

// fullFailure is SQLite's error for a disk that is full.
type fullFailure struct{}

func (fullFailure) Error() string { return "database or disk is full" }
func (fullFailure) Code() int     { return sqlite3.SQLITE_FULL }

// After a write has failed, for any reason, the problem lasts as long as nothing can be
// stored, also if the free space of the disk does not show that, as with a quota, and if
// no further message is sent. Messages can be removed meanwhile. The problem ends soon
// after writing is possible again, and is logged once.
func TestProblemLasts(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		err    error
		reason syscall.Errno
		want   error
	}{
		{"failing disk", ioFailure{}, syscall.EIO, ErrUnwritable},
		{"quota", ioFailure{}, syscall.EDQUOT, ErrFull},
		{"project quota", fullFailure{}, syscall.ENOSPC, ErrFull},
		{"other", errGone, syscall.EDQUOT, ErrUnwritable},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d, log := &faultyDisk{}, make(reports, 10)
			opts := d.options()
			opts.Logger = slog.New(log)
			s := openFile(t, filepath.Join(t.TempDir(), "messages.db"), opts)
			declareTest(t, s, "q")
			d.reason.Store(&test.reason)
			if err := refuseOnce(t, s, test.err, 100); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			for end := time.Now().Add(4 * pollInterval); time.Now().Before(end); time.Sleep(time.Millisecond) {
				if allowsMaintenance(test.err) {
					if err := s.commit(testContext(t), func(*tx) error { return nil }); err != nil {
						t.Fatalf("nothing can be removed: %v", err)
					}
				}
				if s.Health() == nil {
					t.Fatal("no problem, while nothing can be stored")
				}
			}
			d.reason.Store(nil)
			good := time.Now()
			eventually(t, "the end of the problem", func() bool { return s.Health() == nil })
			if took := time.Since(good); took > maxPause+4*pollInterval {
				t.Errorf("it took %v until the problem ended", took)
			}
			putN(t, s, "q", 1)
			log.want(t, "ERROR can not write the message store")
			log.want(t, "INFO the message store can be written again")
			if len(log) > 0 {
				t.Errorf("also reported: %s", <-log)
			}
		})
	}
}

// The problem lasts until there is as much space as the refused message needs: a smaller
// message that can be stored does not end it, and neither does space within a quota that
// the disk does not have, nor the reverse.
func TestProblemLastsUntilSpace(t *testing.T) {
	t.Parallel()
	const size = 300_000
	var inQuota, onDisk atomic.Int64
	inQuota.Store(size)
	onDisk.Store(1 << 30)
	s := openTest(t, Options{
		MinFree: 1 << 20, diskCheckInterval: time.Hour,
		freeBytes: func(string) (int64, error) { return onDisk.Load(), nil },
		tryWriting: func(_ string, size int) error {
			if int64(size) > inQuota.Load() {
				return syscall.EDQUOT
			}
			return nil
		},
	})
	declareTest(t, s, "q")
	lasts := func(why string) {
		t.Helper()
		for end := time.Now().Add(2 * pollInterval); time.Now().Before(end); time.Sleep(time.Millisecond) {
			_ = s.Put(testContext(t), "q", broker.Outgoing{}) // is stored when an attempt is due
			if s.Health() == nil {
				t.Fatalf("no problem, while there is not enough space %s", why)
			}
		}
	}
	if err := refuseOnce(t, s, ioFailure{}, size); !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want %v", err, ErrFull)
	}
	lasts("in the quota")
	onDisk.Store(1 << 18)
	inQuota.Store(2 * maxTrial)
	lasts("on the disk")
	onDisk.Store(1 << 30)
	eventually(t, "the end of the problem", func() bool { return s.Health() == nil })
}

// A store that fills the quota of its user is usable again when its messages were removed:
// their space in the file is returned although the disk has enough.
func TestShrinksInQuota(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "messages.db")
	quota := int64(1 << 40)
	s := openFile(t, path, Options{
		Service: true, MinFree: 1, diskCheckInterval: 10 * time.Millisecond,
		tryWriting: func(_ string, size int) error {
			if sizeOf(path)+sizeOf(path+"-wal")+int64(size) > atomic.LoadInt64(&quota) {
				return syscall.EDQUOT
			}
			return nil
		},
	})
	publishFrom(t, s, "a", 300, 8000)
	sub := subscribe(t, s, "accounts_in")
	_, seqs := take(t, sub, 300)
	atomic.StoreInt64(&quota, 2<<20)
	if err := refuseOnce(t, s, ioFailure{}, 100); !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want %v", err, ErrFull)
	}
	ack(t, sub, seqs...)
	eventually(t, "the end of the problem", func() bool { return s.Health() == nil })
}

// A trial writes to a new file only, and removes it: it follows no symbolic link, and symbolic links
// and folders with the names of trial files stay. Files that a killed process has left are
// removed when the store is opened.
func TestTrialFollowsNoSymlink(t *testing.T) {
	dir := t.TempDir()
	store, other := filepath.Join(dir, "messages.db"), filepath.Join(dir, "other")
	write := func(name string) {
		t.Helper()
		if err := os.WriteFile(name, []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	names := func() (names []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	write(other)
	write(store + "-trial-note")
	write(filepath.Join(dir, "other.db-trial-1"))
	if err := os.Mkdir(store+"-trial-2", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, store+"-trial-3"); err != nil {
		t.Skipf("skipped: a symbolic link: %v", err)
	}
	if err := openFile(t, store, Options{}).Close(); err != nil {
		t.Fatal(err)
	}
	before := names()
	write(store + "-trial-1")
	if err := openFile(t, store, Options{}).Close(); err != nil {
		t.Fatal(err)
	}
	if err := tryWriting(store, minTrial); err != nil {
		t.Error(err)
	}
	if after := names(); !slices.Equal(after, before) {
		t.Errorf("the files are %v, were %v", after, before)
	}
	if content, err := os.ReadFile(other); err != nil || string(content) != "content" {
		t.Errorf("the other file has %d bytes, %v", len(content), err)
	}
}

// Several processes can do trials beside the same store at the same time.
func TestTrialsAtOnce(t *testing.T) {
	store := filepath.Join(t.TempDir(), "messages.db")
	results := make(chan error, 8)
	for range cap(results) {
		go func() {
			var err error
			for range 10 {
				err = errors.Join(err, tryWriting(store, 1))
			}
			results <- err
		}()
	}
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

// accessFailure is SQLite's error for a file that it can not create.
type accessFailure struct{}

func (accessFailure) Error() string { return "unable to open database file" }
func (accessFailure) Code() int     { return sqlite3.SQLITE_CANTOPEN }

// The error of opening a store has the operating system's reason if a trial finds it, and
// the suitable advice: to make room if missing space is the reason, also if the disk seems
// to have some, and to look at owner and mode only if access may be the reason. The reserve
// is removed only if missing space is the reason, and not because the disk has little
// space.
func TestOpenErrorHasReason(t *testing.T) {
	const room, mode = "make room", "look at their owner and mode"
	for _, test := range []struct {
		err    error
		reason error
		want   []error
		advice string // room, mode, or none
	}{
		{ioFailure{}, syscall.EDQUOT, []error{ErrFull, syscall.EDQUOT}, room},
		{ioFailure{}, syscall.ENOSPC, []error{ErrFull, syscall.ENOSPC}, room},
		{accessFailure{}, syscall.EDQUOT, []error{ErrFull, syscall.EDQUOT}, room},
		{fullFailure{}, nil, []error{ErrFull}, room},
		{ioFailure{}, syscall.EIO, []error{syscall.EIO}, ""},
		{accessFailure{}, syscall.EIO, []error{syscall.EIO}, ""},
		{accessFailure{}, syscall.EROFS, []error{syscall.EROFS}, mode},
		{accessFailure{}, syscall.EACCES, []error{syscall.EACCES}, mode},
		{accessFailure{}, nil, nil, mode},
		{ioFailure{}, nil, nil, ""},
		{errNotStore, syscall.EDQUOT, []error{errNotStore}, ""},
	} {
		for _, free := range []int64{0, 1 << 40} {
			o := Options{
				freeBytes:  func(string) (int64, error) { return free, nil },
				tryWriting: func(string, int) error { return test.reason },
			}
			store := filepath.Join(t.TempDir(), "messages.db")
			got := o.openError(store, test.err)
			for _, want := range append(test.want, test.err) {
				if !errors.Is(got, want) || !strings.Contains(got.Error(), want.Error()) {
					t.Errorf("%v, %v, %d free: got %v, want %v", test.err, test.reason, free, got, want)
				}
			}
			for _, advice := range []string{room, mode} {
				if strings.Contains(got.Error(), advice) != (advice == test.advice) {
					t.Errorf("%v, %v, %d free: got %v, want the advice %q", test.err, test.reason, free, got, test.advice)
				}
			}
			if err := os.WriteFile(store+"-reserve", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if full := slices.Contains(test.want, ErrFull); o.makeRoomToOpen(store, test.err) != full {
				t.Errorf("%v, %v, %d free: the reserve is removed: %v", test.err, test.reason, free, !full)
			}
		}
	}
}

// The reserve stays if removing messages on a full disk fails for another reason than missing
// space, because removing the reserve would not help.
func TestReserveStaysAfterOtherError(t *testing.T) {
	t.Parallel()
	created := 0
	s := openFile(t, filepath.Join(t.TempDir(), "messages.db"), Options{
		MinFree: 1 << 20, Reserve: 1 << 20, Service: true, diskCheckInterval: time.Hour,
		writeReserve: func(path string, content []byte) error { created++; return writeReserve(path, content) },
	})
	failures := []error{fullFailure{}, accessFailure{}}
	err := s.commit(testContext(t), func(*tx) (err error) {
		if len(failures) > 0 {
			err, failures = failures[0], failures[1:]
		}
		return err
	})
	if err != nil || len(failures) > 0 {
		t.Errorf("%v, %d failures have not happened", err, len(failures))
	}
	_, statErr := os.Stat(s.path + "-reserve")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if statErr != nil || created != 1 {
		t.Errorf("the reserve: %v, created %d times, want it to exist and to be created once", statErr, created)
	}
}

// To open a store on a disk with enough space, no trial is done, and the reserve stays.
func TestOpenWithoutTrial(t *testing.T) {
	tried := 0
	opts := Options{
		MinFree: 1 << 20, Reserve: 1 << 20, Service: true,
		tryWriting: func(string, int) error { tried++; return syscall.EDQUOT },
	}
	s := openFile(t, filepath.Join(t.TempDir(), "messages.db"), opts)
	before, err := os.Stat(s.path + "-reserve")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	openFile(t, s.path, opts)
	after, err := os.Stat(s.path + "-reserve")
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the reserve was created again (%v)", err)
	}
	if tried > 0 {
		t.Errorf("%d trials were done", tried)
	}
}
