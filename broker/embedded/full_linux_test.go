package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"peerlink/broker"
	"peerlink/internal/durable"
)

// smallDisk mounts a file system of a few MiB.
func smallDisk(t *testing.T, size string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size+",mode=0700"); err != nil {
		t.Skipf("skipped: store on a full disk (mounting a small tmpfs: %v)", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// The store cannot grow because its disk is full: see testFull.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "8m")
	log := make(reports, 10)
	s := openFile(t, filepath.Join(dir, "messages.db"), Options{Logger: slog.New(log), MaxPending: 1000})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, bytes.Repeat([]byte("x"), 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	testFull(t, s, log, func() {
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=200m"); err != nil {
			t.Error(err)
		}
		if err := os.Remove(ballast); err != nil {
			t.Error(err)
		}
	})
}

// If a store can not be opened, or its reserve not be made, because a disk with free space has no free inodes, the error
// says so.
func TestNoInodes(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "8m,nr_inodes=8")
	path := filepath.Join(dir, "messages.db")
	s := openFile(t, path, Options{})
	var err error
	for n := 0; err == nil; n++ {
		err = os.WriteFile(filepath.Join(dir, strconv.Itoa(n)), nil, 0o600)
	}
	if err := s.writer.reserve.write(path+"-reserve", nil); !isNoRoom(err) || !errors.Is(err, durable.ErrNoInodes) {
		t.Errorf("reserve: %v", err)
	}
	if _, err := Open(filepath.Join(dir, "new.db"), Options{}); !errors.Is(err, ErrFull) || !errors.Is(err, durable.ErrNoInodes) {
		t.Errorf("open: %v", err)
	}
}

// fillDisk uses up all the free space of a disk.
func fillDisk(t *testing.T, ballast string) {
	t.Helper()
	if err := fill(ballast); err != nil {
		t.Fatal(err)
	}
}

func fill(ballast string) error {
	f, err := os.Create(ballast)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4 << 10} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		return err
	}
	return nil
}

// A disk that is filled, by messages and then by another program to the last byte, blocks
// only operations that need space: no messages are accepted from peers, messages of
// applications are refused immediately, and Health reports that; but messages can become
// dead letters, be dropped and consumed, and peers be deactivated. When the consumers have
// consumed the messages, the file is shrunk, and the initial state is reached again, no
// matter how often.
func TestFillAndDrain(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "48m")
	path, ballast := filepath.Join(dir, "messages.db"), filepath.Join(dir, "ballast")
	s := openFile(t, path, Options{MinFree: 16 << 20, Reserve: 4 << 20, Service: true, diskCheckInterval: time.Millisecond})
	within := func(what string, f func(context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := f(ctx); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	outgoing := broker.Outgoing{Type: "T", ContentType: "application/json", Body: bytes.Repeat([]byte("x"), 8000)}
	rounds := 3
	if os.Getenv("PEERLINK_TEST_LONG") != "" {
		rounds = 10
	}
	for round := range rounds {
		q := peer("aa", "to_debtors", "q", "q")
		within("declare", func(ctx context.Context) error { return s.Bind(ctx, q) })
		in, out := 0, 50
		putN(t, s, "q", out)
		for admitted(t, s, "a") {
			publishFrom(t, s, "a", 100, 8000)
			in += 100
			s.flush()
		}
		var err error
		for err == nil {
			if err = s.Put(t.Context(), "q", outgoing); err == nil { // slow with the race detector under load
				out++
			}
		}
		if !errors.Is(err, ErrFull) || in < 100 {
			t.Fatalf("round %d: after %d received and %d sent messages: %v", round, in, out, err)
		}
		fillDisk(t, ballast)
		eventually(t, "the problem", func() bool { return s.Health() != nil })
		within("refuse", func(ctx context.Context) error {
			if err := s.Put(ctx, "q", outgoing); !errors.Is(err, ErrFull) {
				return err
			}
			return nil
		})

		ctx := testContext(t)
		c := consume(t, s, "q")
		ds, err := c.Next(ctx, 10)
		if err != nil {
			t.Fatal(err)
		}
		tag := ds[0].Tag
		within("make a dead letter", func(ctx context.Context) error { return c.DeadLetter(ctx, tag, "because") })
		within("drop", func(ctx context.Context) error {
			_, err := s.Drop(ctx, "q", []string{strconv.FormatUint(tag, 10)})
			return err
		})
		within("release", func(ctx context.Context) error { return s.Unbind(ctx, q) })
		eventually(t, "the problem", func() bool { return s.Health() != nil })

		for taken := len(ds); taken < out; taken += len(ds) {
			if ds, err = c.Next(ctx, 1000); err != nil {
				t.Fatal(err)
			}
			if err := c.Confirm(ds[len(ds)-1].Tag); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
		sub := subscribe(t, s, "accounts_in")
		for taken := 0; taken < in; {
			_, seqs := take(t, sub, min(100, in-taken))
			taken += len(seqs)
			ack(t, sub, seqs...)
		}
		sub.Close()
		eventually(t, "the end of the problem", func() bool { return s.Health() == nil })
		eventually(t, "a reserve again", func() bool { _, err := os.Stat(path + "-reserve"); return err == nil })
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}
	checkUsage(t, s, "a")
}

// Messages queued for a peer that fill the disk do not prevent receiving: as many
// messages are accepted from peers as applications consume, for any length of time.
// Otherwise two nodes that were disconnected for a long time would wait for each other
// and never empty their queues.
func TestBacklogDoesNotShutOutPeers(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "64m")
	const minFree, window = 32 << 20, 2 << 20
	s := openFile(t, filepath.Join(dir, "messages.db"),
		Options{MinFree: minFree, Reserve: 4 << 20, Service: true, diskCheckInterval: time.Millisecond})
	if err := s.Bind(testContext(t), peer("aa", "to_debtors", "q", "q")); err != nil {
		t.Fatal(err)
	}
	one := broker.Outgoing{Type: "T", ContentType: "application/json", Body: make([]byte, 8000)}
	refused := func() (after int) {
		for n := 100; n > 0; {
			switch err := s.PutAll(testContext(t), "q", slices.Repeat([]broker.Outgoing{one}, n)); {
			case errors.Is(err, ErrFull):
				n /= 10
			case err != nil:
				t.Fatal(err)
			default:
				after += n
			}
		}
		return after
	}
	// The write-ahead log grows meanwhile, and shrinks again.
	for refused() > 0 || !s.disk.isShort() || s.Health() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	sub := subscribe(t, s, "accounts_in")
	reserve := filepath.Join(dir, "messages.db-reserve")
	for round := range 10 {
		if round == 5 {
			// The reserve is lost, as when another program had filled the disk for a moment.
			if err := os.Remove(reserve); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a reserve again", func() bool { _, err := os.Stat(reserve); return err == nil })
		}
		eventually(t, "admitted", func() bool { return admitted(t, s, "a") })
		in := 0
		for admitted(t, s, "a") {
			publishFrom(t, s, "a", 20, 8000)
			s.flush()
			if in += 20; in > 2*window/8000 {
				t.Fatalf("round %d: %d messages were accepted, and the peer is still admitted", round, in)
			}
		}
		if in < window/8000/2 {
			t.Fatalf("round %d: only %d messages were accepted", round, in)
		}
		for taken := 0; taken < in; {
			_, seqs := take(t, sub, min(100, in-taken))
			taken += len(seqs)
			ack(t, sub, seqs...)
			if size := sizeOf(filepath.Join(dir, "messages.db-wal")); size > window {
				t.Fatalf("round %d: the write-ahead log has %d bytes, as many as messages of peers may have", round, size)
			}
		}
		if _, err := os.Stat(reserve); err != nil {
			t.Fatalf("round %d: the disk was filled to the reserve: %v", round, err)
		}
	}
}

// If another program leaves only a little more space than messages of peers require, they are
// stored in parts as fast as an application consumes them, although all those that have been
// accepted meanwhile do not fit at once.
func TestStoredInParts(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "24m")
	s := openFile(t, filepath.Join(dir, "messages.db"),
		Options{MinFree: 16 << 20, Reserve: 1 << 20, Service: true, diskCheckInterval: time.Millisecond})
	const count, window = 8000, 1 << 20
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer ballast.Close()
	eventually(t, "a reserve", func() bool { _, err := os.Stat(filepath.Join(dir, "messages.db-reserve")); return err == nil })
	for free, err := freeBytes(dir); free > window+window/2; free, err = freeBytes(dir) {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ballast.Write(make([]byte, min(free-window-window/2+4095, 1<<20))); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "almost full", func() bool { return s.Health() != nil })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p, err := s.Publish(ctx, func(uint64, error) {})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	published := make(chan error, 1)
	go func() {
		for n := range count {
			err := s.AwaitQuota(ctx, "a")
			if err == nil {
				err = p.Publish(ctx, &broker.Incoming{Peer: "a", Exchange: "accounts_in", Type: "T", RoutingKey: strconv.Itoa(n), Body: make([]byte, 1000)})
			}
			if err != nil {
				published <- err
				return
			}
		}
		published <- nil
	}()
	sub := subscribe(t, s, "accounts_in")
	for taken := 0; taken < count; {
		ms, err := sub.Next(ctx, 100)
		if err != nil {
			t.Fatalf("after %d messages: %v; %v", taken, err, s.Health())
		}
		var seqs []uint64
		for _, m := range ms {
			if m.RoutingKey != strconv.Itoa(taken) {
				t.Fatalf("got message %s, want %d", m.RoutingKey, taken)
			}
			seqs = append(seqs, m.Seq)
			taken++
		}
		ack(t, sub, seqs...)
	}
	if err := <-published; err != nil {
		t.Error(err)
	}
}

// The reserve is removed, after opening has failed, if less is free than opening needs, and
// not if that much is free, nor if another process has the store open.
func TestReserveRemovedToOpen(t *testing.T) {
	for _, tt := range []struct {
		what    string
		reserve int
		open    bool // by another process
		stays   bool
	}{
		{"just enough space", spaceToOpen, false, true},
		{"one page too little", spaceToOpen + os.Getpagesize(), false, false},
		{"too little, but open", spaceToOpen + os.Getpagesize(), true, true},
	} {
		store := filepath.Join(smallDisk(t, strconv.Itoa(2*spaceToOpen)), "messages.db")
		if err := os.WriteFile(store+"-reserve", make([]byte, tt.reserve), 0o600); err != nil {
			t.Fatal(err)
		}
		if tt.open {
			if err := os.WriteFile(store+"-shm", nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		o := Options{freeBytes: freeBytes, tryWriting: tryWriting}
		removed := o.makeRoomToOpen(store, ioFailure{})
		if _, err := os.Stat(store + "-reserve"); (err == nil) != tt.stays || removed == tt.stays {
			t.Errorf("%s: the reserve: %v, want it to stay: %v", tt.what, err, tt.stays)
		}
	}
}

// The reserve stays if a service that opens its store on an almost full disk has no access
// to one of its files, such as one that another user has created: removing the reserve
// would not help.
func TestReserveStaysWithoutAccess(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"messages.db", "messages.db-wal", "messages.db-shm"} {
		dir := smallDisk(t, "8m")
		path, locked := filepath.Join(dir, "messages.db"), filepath.Join(dir, file)
		o := Options{MinFree: 4 << 20, Reserve: 2 << 20, Service: true}
		if err := openFile(t, path, o).Close(); err != nil {
			t.Fatal(err)
		}
		for name, size := range map[string]int{file: 0, "room": spaceToOpen / 2} {
			f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
			if err == nil {
				_, err = f.Write(make([]byte, size))
			}
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}
		fillDisk(t, filepath.Join(dir, "ballast"))
		if err := os.Remove(filepath.Join(dir, "room")); err != nil {
			t.Fatal(err)
		}
		before, err := os.Stat(path + "-reserve")
		if err != nil {
			t.Fatal(err)
		}
		readOnly(t, locked)
		s, err := Open(path, o)
		if err == nil {
			err = s.Close()
		}
		if errors.Is(err, ErrFull) {
			t.Errorf("%s can not be written: got %v", file, err)
		}
		if after, err := os.Stat(path + "-reserve"); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s can not be written: the reserve was removed (%v)", file, err)
		}
	}
}

// A service does not open a store whose file it cannot write: SQLite would continue with
// the file opened for reading only, also when it could be written again.
func TestServiceNeedsWriteAccess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(smallDisk(t, "8m"), "messages.db")
	o := Options{Service: true}
	if err := openFile(t, path, o).Close(); err != nil {
		t.Fatal(err)
	}
	readOnly(t, path)
	s, err := Open(path, o)
	if err == nil {
		s.Close()
	}
	if !isAccessError(err) || !errors.Is(err, unix.EROFS) {
		t.Errorf("opening a file that can not be written: %v", err)
	}
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	publishBodies(t, openFile(t, path, o), "accounts_in", "stored")
}

// readOnly makes a file read-only for every user, by mounting it over itself.
func readOnly(t *testing.T, file string) {
	t.Helper()
	err := unix.Mount(file, file, "", unix.MS_BIND, "")
	if err == nil {
		t.Cleanup(func() { _ = unix.Unmount(file, unix.MNT_DETACH) })
		err = unix.Mount("", file, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A service that is started on a full disk uses the space of the reserve to remove
// messages.
func TestOpenOnFullDisk(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "24m")
	path := filepath.Join(dir, "messages.db")
	o := Options{MinFree: 4 << 20, Reserve: 2 << 20, Service: true}
	s := openFile(t, path, o)
	publishFrom(t, s, "a", 100, 1000)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fillDisk(t, filepath.Join(dir, "ballast"))
	s = openFile(t, path, o)
	if admitted(t, s, "a") || s.Health() == nil {
		t.Errorf("admitted on a full disk, the problem is %v", s.Health())
	}
	sub := subscribe(t, s, "accounts_in")
	_, seqs := take(t, sub, 100)
	ack(t, sub, seqs...)
}

// A service is started while nothing more can be written although the disk seems to have
// space, as with a quota: the space of the reserve is used to open the store, and to
// remove messages. Without a reserve, the error has the reason.
func TestOpenOnFullQuota(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "24m")
	path := filepath.Join(dir, "messages.db")
	o := Options{
		MinFree: 4 << 20, Reserve: 2 << 20, Service: true,
		freeBytes: func(string) (int64, error) { return 1 << 40, nil },
	}
	s := openFile(t, path, o)
	publishFrom(t, s, "a", 100, 1000)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fillDisk(t, filepath.Join(dir, "ballast"))
	s = openFile(t, path, o)
	if s.Health() == nil {
		t.Error("no problem without a reserve")
	}
	sub := subscribe(t, s, "accounts_in")
	_, seqs := take(t, sub, 100)
	ack(t, sub, seqs...)
	sub.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	removeRoom(t, path)
	fillDisk(t, filepath.Join(dir, "more"))
	_, err := Open(path, o)
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("got %v, want ErrFull", err)
	}
}

// A peer may confirm all messages while the disk is full. Removing them in one transaction
// needs more space than the reserve has, so they are removed in steps, without a restart,
// and afterwards the store has its reserve again.
func TestManyRemovedOnFullDisk(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "48m")
	path := filepath.Join(dir, "messages.db")
	s := openFile(t, path, Options{MinFree: 4 << 20, Reserve: 2 << 20, Service: true, diskCheckInterval: time.Millisecond})
	q := peer("aa", "to_debtors", "q", "q")
	if err := s.Bind(testContext(t), q); err != nil {
		t.Fatal(err)
	}
	const count = 24_000
	putN(t, s, "q", count)
	// Up to 8 MiB may be in the log only, and the reserve of this test is smaller than that.
	checkpoint(t, path, "RESTART")
	fillDisk(t, filepath.Join(dir, "ballast"))
	c := consume(t, s, "q")
	taken := 0
	var last uint64
	for taken < count {
		ds, err := c.Next(testContext(t), 1000)
		if err != nil {
			t.Fatal(err)
		}
		taken += len(ds)
		last = ds[len(ds)-1].Tag
	}
	if err := c.Confirm(last); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an empty queue", func() bool {
		stats, err := s.Stats(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range stats.Queues {
			if q.Depth > 0 {
				return false
			}
		}
		return true
	})
	eventually(t, "the end of the problem, with a reserve", func() bool {
		_, err := os.Stat(path + "-reserve")
		return s.Health() == nil && err == nil
	})
}

// A file whose messages were removed is returned to a full disk, although the disk has less
// space than the write-ahead log needs for a step of the usual size.
func TestShrinksInLittleSpace(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "48m")
	path, ballast := filepath.Join(dir, "messages.db"), filepath.Join(dir, "ballast")
	opts := Options{MinFree: 40 << 20, Service: true, diskCheckInterval: time.Hour}
	s := openFile(t, path, opts)
	declareTest(t, s, "q")
	const count = 24_000
	putN(t, s, "q", count)
	c := consume(t, s, "q")
	for taken := 0; taken < count; {
		ds, err := c.Next(testContext(t), 1000)
		if err != nil {
			t.Fatal(err)
		}
		taken += len(ds)
		if err := c.Confirm(ds[len(ds)-1].Tag); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if size := sizeOf(path); size < 2*maxShrinkStep {
		t.Fatalf("the file has %d bytes, too few for this test", size)
	}
	fillDisk(t, ballast)
	if err := os.Truncate(ballast, sizeOf(ballast)-spaceToOpen-256<<10); err != nil {
		t.Fatal(err)
	}
	opts.diskCheckInterval = time.Millisecond
	openFile(t, path, opts)
	eventually(t, "a small file", func() bool { return sizeOf(path) < 1<<20 })
}

// removeRoom removes the files in which a closed store holds space on a full disk.
func removeRoom(t *testing.T, store string) {
	t.Helper()
	for _, suffix := range []string{"-reserve", "-wal", "-shm"} {
		if err := os.Remove(store + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// A store that is closed without its reserve, because the disk was full, keeps its write-ahead
// log: it can be opened again on the full disk, and messages can be consumed. Without the log, Open
// fails with the reason.
func TestOpenWithoutReserve(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "48m")
	path, ballast := filepath.Join(dir, "messages.db"), filepath.Join(dir, "ballast")
	opts := Options{MinFree: 16 << 20, Reserve: 2 << 20, Service: true, diskCheckInterval: time.Millisecond}
	s := openFile(t, path, opts)
	if err := s.Bind(testContext(t), peer("aa", "to_debtors", "q", "q")); err != nil {
		t.Fatal(err)
	}
	stored := 0
	// Transactions of one message each make the log longer than the reserve.
	for info, err := os.Stat(path + "-wal"); err != nil || info.Size() < 3<<20; info, err = os.Stat(path + "-wal") {
		putN(t, s, "q", 1)
		stored++
	}
	checkpoint(t, path, "RESTART")
	// In the writer's goroutine, because otherwise the writer would truncate the log
	// meanwhile, and the ballast would use the space of the log.
	if err := s.commit(testContext(t), func(*tx) error {
		if err := os.Remove(path + "-reserve"); err != nil {
			return err
		}
		return fill(ballast)
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "without its log", func() bool { return sizeOf(path+"-wal") <= s.disk.keptWAL })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fillDisk(t, filepath.Join(dir, "more"))
	s = openFile(t, path, opts)
	c := consume(t, s, "q")
	for taken := 0; taken < stored; {
		ds, err := c.Next(testContext(t), 1000)
		if err != nil {
			t.Fatal(err)
		}
		taken += len(ds)
		if err := c.Confirm(ds[len(ds)-1].Tag); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "empty", func() bool { return statsOf(t, s, "q").Depth == 0 })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	removeRoom(t, path)
	fillDisk(t, filepath.Join(dir, "still more"))
	_, err := Open(path, opts)
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("got %v, want ErrFull", err)
	}
}

// Messages can be consumed although another program has used up all the space, that of the reserve included, and what is
// freed at once: a part of the write-ahead log is kept for that.
func TestConsumeWithoutReserve(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "32m")
	path := filepath.Join(dir, "messages.db")
	const reserve = 2 << 20
	s := openFile(t, path, Options{MinFree: 24 << 20, Reserve: reserve, Service: true, diskCheckInterval: time.Millisecond})
	declareTest(t, s, "q")
	const count = 100
	publishFrom(t, s, "a", count, 1000)
	eventually(t, "a reserve", func() bool { return sizeOf(path+"-reserve") == reserve })
	if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	// The log reaches the size from which it is truncated while the disk has little space.
	if err := s.PutAll(testContext(t), "q", slices.Repeat([]broker.Outgoing{{Type: "T", ContentType: "application/json", Body: make([]byte, 1000)}}, 1500)); err != nil {
		t.Fatal(err)
	}
	fillDisk(t, filepath.Join(dir, "more"))
	if err := os.Remove(path + "-reserve"); err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, s, "accounts_in")
	for n := range count {
		fillDisk(t, filepath.Join(dir, "more"+strconv.Itoa(n)))
		consumeOne(t, s, sub, fmt.Sprintf("message %d of %d", n+1, count))
	}
}

// consumeOne consumes a message, which what describes, and waits until it is removed.
func consumeOne(t *testing.T, s *Store, sub *Subscription, what string) {
	t.Helper()
	_, seqs := take(t, sub, 1)
	removed := make(chan error, 1)
	if err := sub.Ack(seqs, func(err error) { removed <- err }); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-removed:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("%s is not removed: %v", what, s.Health())
	}
}

// taker is another program that uses up whatever is free on a disk.
type taker struct {
	mu   sync.Mutex
	file *os.File
}

func newTaker(t *testing.T, file string) *taker {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &taker{file: f}
}

// take uses up what is free now.
func (k *taker) take() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, size := range []int{1 << 20, 4 << 10} {
		for err := error(nil); err == nil; {
			_, err = k.file.Write(make([]byte, size))
		}
	}
}

// takeAlways uses up what becomes free at any moment, until stop is called.
func (k *taker) takeAlways() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			k.take()
		}
	}()
	return func() { cancel(); <-ended }
}

// options are those of a service. Between a step that frees space and the step that would use it, the
// space is taken.
func (k *taker) options() Options {
	return Options{
		MinFree: takenMinFree, Reserve: takenReserve, Service: true, diskCheckInterval: time.Millisecond,
		Logger: slog.New(slog.DiscardHandler),
		freeBytes: func(dir string) (int64, error) {
			k.take()
			return freeBytes(dir)
		},
		writeReserve: func(path string, content []byte) error {
			k.take()
			return writeReserve(path, content)
		},
		tryWriting: func(store string, size int) error {
			k.take()
			return tryWriting(store, size)
		},
	}
}

// consumeTaken opens a store while a program uses up all space, consumes all messages, each in a
// transaction, and closes the store.
func consumeTaken(t *testing.T, path string, k *taker, count int) {
	t.Helper()
	k.take()
	stop := k.takeAlways()
	defer stop()
	s := openFile(t, path, k.options())
	sub := subscribe(t, s, "accounts_in")
	for n := range count {
		consumeOne(t, s, sub, fmt.Sprintf("message %d of %d", n+1, count))
	}
	sub.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A service that was stopped on a full disk starts again, and its messages are consumed, although
// another program has used up the space of the reserve, and uses up whatever is free at any moment. A
// command or a service that has opened the store meanwhile does not change that.
func TestStoppedOnTakenDisk(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "48m")
	path := filepath.Join(dir, "messages.db")
	k := newTaker(t, filepath.Join(dir, "taken"))
	o := k.options()
	o.freeBytes, o.tryWriting, o.diskCheckInterval = freeBytes, tryWriting, time.Hour
	o.writeReserve = func(path string, content []byte) error {
		if _, err := os.Stat(path + "-taken"); err == nil {
			k.take()
		}
		return writeReserve(path, content)
	}
	s := openFile(t, path, o)
	if err := receiveTaken(s); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+"-reserve", path+"-reserve-taken"); err != nil {
		t.Fatal(err)
	}
	k.take()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	k.take()
	consumeTaken(t, path, k, takenCount/3)
	command := k.options()
	command.Service, command.MinFree, command.Reserve = false, 0, 0
	if err := openFile(t, path, command).Close(); err != nil {
		t.Fatal(err)
	}
	consumeTaken(t, path, k, takenCount-takenCount/3)
}

// The same holds after the service was killed.
func TestKilledOnTakenDisk(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "48m")
	path := filepath.Join(dir, "messages.db")
	killAfter(t, startChild(t, "receive", path), 1)
	if err := os.Rename(path+"-reserve", filepath.Join(dir, "reserve-taken")); err != nil {
		t.Fatal(err)
	}
	k := newTaker(t, filepath.Join(dir, "taken"))
	consumeTaken(t, path, k, takenCount/3)
	consumeTaken(t, path, k, takenCount-takenCount/3)
}

// When a store is opened on a full disk, SQLite does not truncate its shared memory, but uses nothing
// that was in it before a crash.
func TestSharedMemoryKept(t *testing.T) {
	t.Parallel()
	path := filepath.Join(smallDisk(t, "48m"), "messages.db")
	killAfter(t, startChild(t, "receive", path), 1)
	const size = 64 << 10 // more than SQLite needs
	if err := os.WriteFile(path+"-shm", bytes.Repeat([]byte{0xa5}, size), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openFile(t, path, Options{MinFree: 1 << 40, Service: true})
	if got := sizeOf(path + "-shm"); got < size {
		t.Errorf("the shared memory was truncated to %d bytes", got)
	}
	if depth := statsOf(t, s, "accounts_in").Depth; depth != takenCount {
		t.Errorf("got %d messages, want %d", depth, takenCount)
	}
}
