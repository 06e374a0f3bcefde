package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"peerlink/broker"
)

// reports is a slog.Handler that makes log records available, except the one for a new
// store.
type reports chan string

func (r reports) Enabled(context.Context, slog.Level) bool { return true }
func (r reports) Handle(_ context.Context, rec slog.Record) error {
	if rec.Message != newStoreMessage {
		r <- rec.Level.String() + " " + rec.Message
	}
	return nil
}
func (r reports) WithAttrs([]slog.Attr) slog.Handler { return r }
func (r reports) WithGroup(string) slog.Handler      { return r }

// want waits for the next record, and checks its beginning.
func (r reports) want(t *testing.T, prefix string) {
	t.Helper()
	select {
	case got := <-r:
		if !strings.HasPrefix(got, prefix) {
			t.Fatalf("reported %q, want %q…", got, prefix)
		}
	case <-testContext(t).Done():
		t.Fatalf("nothing was reported, want %q…", prefix)
	}
}

// flood publishes numbered messages until it is stopped, and counts the confirmations.
type flood struct {
	publisher broker.Publisher
	confirmed atomic.Uint64
	err       atomic.Value // passed to confirmed
	cancel    context.CancelFunc
	published chan int // receives their number after the end
}

func startFlood(t *testing.T, s *Store) *flood {
	t.Helper()
	ctx, cancel := context.WithCancel(testContext(t))
	f := &flood{cancel: cancel, published: make(chan int, 1)}
	p, err := s.Publish(ctx, func(n uint64, err error) {
		if n < f.confirmed.Load() {
			t.Errorf("%d confirmed after %d", n, f.confirmed.Load())
		}
		f.confirmed.Store(n)
		if err != nil {
			f.err.Store(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	f.publisher = p
	go func() {
		for n := 0; ; n++ {
			m := &broker.Incoming{Exchange: "accounts_in", Body: fmt.Appendf(nil, "%d %0500d", n+1, 0)}
			if err := p.Publish(ctx, m); err != nil {
				f.published <- n
				return
			}
		}
	}()
	return f
}

// stop ends the flood and returns how many messages were published.
func (f *flood) stop() int {
	f.cancel()
	return <-f.published
}

// checkStored checks that the inbox has the messages 1 to n, in order, each once, with n
// between min and max.
func checkStored(t *testing.T, s *Store, min, max int) {
	t.Helper()
	got := queued(t, s, "accounts_in")
	for i, body := range got {
		if number, _, _ := strings.Cut(body, " "); number != fmt.Sprint(i+1) {
			t.Fatalf("message %s is at place %d of %d", number, i+1, len(got))
		}
	}
	if len(got) < min || len(got) > max {
		t.Errorf("%d messages are stored, want %d to %d", len(got), min, max)
	}
	if depth := statsOf(t, s, "accounts_in").Depth; int(depth) != len(got) {
		t.Errorf("depth %d, but %d messages", depth, len(got))
	}
}

// eventually waits until a condition is true.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// pageLimit is an operation, part of every transaction, that limits the size of the file
// to the current limit.
type pageLimit struct {
	store *Store
	pages atomic.Int64
}

func (l *pageLimit) apply(t *tx) error {
	_, err := t.number(fmt.Sprintf("PRAGMA max_page_count = %d", l.pages.Load()))
	return err
}

func (l *pageLimit) cost() (kind, quantity) { return maintenance, quantity{} }

// finish submits the operation again, as the first one of the next transaction.
func (l *pageLimit) finish(error) {
	w := l.store.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	w.batch = slices.Insert(w.batch, 0, op(l))
	w.wake.Notify()
}

// testFull checks what happens when the store can not grow: no message is confirmed that
// is not stored, publishers block, one log record is written, and when there is space
// again, the store continues by itself, with no message lost, duplicated or out of order.
func testFull(t *testing.T, s *Store, log reports, freeSpace func()) {
	t.Helper()
	f := startFlood(t, s)
	log.want(t, "ERROR can not write the message store")
	stats, err := s.Stats(testContext(t))
	if err != nil || stats.Problem == nil || stats.Problem.Err == nil {
		t.Errorf("stats show no problem: %+v, %v", stats, err)
	}
	// Meanwhile a retry may have failed in the same way, with an error of its own.
	if err := s.Health(); err == nil || !strings.HasSuffix(err.Error(), stats.Problem.Err.Error()) {
		t.Errorf("the problem is %v, want %v", err, stats.Problem.Err)
	}
	before := f.confirmed.Load()
	checkStored(t, s, int(before), int(before))
	freeSpace()
	log.want(t, "INFO the message store can be written again")
	if err := s.Health(); err != nil {
		t.Errorf("there is a problem still: %v", err)
	}
	for f.confirmed.Load() == before {
		runtime.Gosched()
	}
	n := f.stop()
	publishBodies(t, s, "other_in", "last") // stored after all others
	if got := f.confirmed.Load(); int(got) != n {
		t.Errorf("%d of %d are confirmed", got, n)
	}
	checkStored(t, s, n, n)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	close(log)
	for report := range log {
		t.Errorf("also reported: %s", report)
	}
}

// The file can not grow because of SQLite's own limit.
func TestFileLimit(t *testing.T) {
	t.Parallel()
	log := make(reports, 10)
	s := openTest(t, Options{Logger: slog.New(log)})
	limit := &pageLimit{store: s}
	limit.pages.Store(200)
	if err := s.writer.submit(limit); err != nil {
		t.Fatal(err)
	}
	testFull(t, s, log, func() { limit.pages.Store(1 << 30) })
}

// Another process holds the lock of the file longer than SQLite waits.
func TestFileLocked(t *testing.T) {
	t.Parallel()
	log := make(reports, 10)
	s := openTest(t, Options{Logger: slog.New(log)})
	testFull(t, s, log, lockFile(t, s))
}

// The folder is moved away, or the file is replaced, while the store is open. Messages
// written then would be lost.
func TestFileGone(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("skipped: Windows moves no files that are open")
	}
	rename := func(t *testing.T, from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	for name, swap := range map[string]func(t *testing.T, path string) (back func()){
		"folder moved": func(t *testing.T, path string) func() {
			dir := filepath.Dir(path)
			rename(t, dir, dir+"-away")
			return func() { rename(t, dir+"-away", dir) }
		},
		"file replaced": func(t *testing.T, path string) func() {
			rename(t, path, path+"-away")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return func() { rename(t, path+"-away", path) }
		},
		"log removed": func(t *testing.T, path string) func() {
			rename(t, path+"-wal", path+"-away")
			return func() { rename(t, path+"-away", path+"-wal") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := make(reports, 10)
			s := openTest(t, Options{Logger: slog.New(log)})
			back := swap(t, s.path)
			testFull(t, s, log, func() {
				if err := s.Health(); !errors.Is(err, errGone) {
					t.Errorf("the problem is %v, want %v", err, errGone)
				}
				back()
			})
		})
	}
}

// Closing a store that can not write ends soon, reports an error for each operation that
// is not stored, and does not lose confirmed ones.
func TestCloseWithProblem(t *testing.T) {
	t.Parallel()
	log := make(reports, 10)
	s := openTest(t, Options{Logger: slog.New(log), MaxPending: 100})
	unlock := lockFile(t, s)
	f := startFlood(t, s)
	log.want(t, "ERROR can not write")
	err := s.Close()
	if err == nil || !strings.Contains(err.Error(), s.path) {
		t.Errorf("close: got %v, want an error that names the file", err)
	}
	f.stop()
	if err, _ := f.err.Load().(error); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("confirmed was called with %v, want ErrClosed", err)
	}
	unlock()
	s = openFile(t, s.path, Options{})
	checkStored(t, s, int(f.confirmed.Load()), int(f.confirmed.Load()))
}

// Calls that are blocked when the store is closed return ErrClosed, and no goroutine of
// the store is left.
func TestCloseWhileBlocked(t *testing.T) {
	s := openTest(t, Options{MaxPending: 10})
	declareTest(t, s, "q")
	ctx := testContext(t)
	unlock := lockFile(t, s)
	c := consume(t, s, "q")
	sub, w := s.Subscribe("accounts_in"), s.Watch("accounts_in")
	ended := make(chan error, 100)
	var floods []*flood
	for range 4 {
		floods = append(floods, startFlood(t, s))
	}
	go func() { _, err := c.Next(ctx, 1); ended <- err }()
	go func() { _, err := sub.Next(ctx, 1); ended <- err }()
	go func() { _, _, err := w.Next(ctx); ended <- err }()
	waitFull(t, s)
	for range 10 { // use up the budget of the applications
		if err := s.Send(ctx, "to_debtors", "q", broker.Outgoing{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		go func() { ended <- s.Send(ctx, "to_debtors", "q", broker.Outgoing{}, nil) }()
		go func() { ended <- s.Put(ctx, "q", broker.Outgoing{}) }()
	}
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	for range 3 + 8 {
		if err := <-ended; !errors.Is(err, broker.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	}
	for _, f := range floods {
		<-f.published
	}
	unlock() // only now: the above did not wait for the disk
	if err := <-closed; err != nil {
		t.Errorf("close: %v", err)
	}
	n := 0
	for _, f := range floods {
		n += int(f.confirmed.Load())
		f.cancel()
	}
	s2 := openFile(t, s.path, Options{})
	if got := len(queued(t, s2, "accounts_in")); got != n || got < 10 {
		t.Errorf("%d messages stored, %d confirmed", got, n)
	}
	s2.Close()
	wantNoGoroutines(t)
}

// waitFull waits until no more messages are accepted.
func waitFull(t *testing.T, s *Store) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); s.writer.peerBudget.messages.TryAcquire(1); time.Sleep(time.Millisecond) {
		s.writer.peerBudget.messages.Release(1)
		if time.Now().After(deadline) {
			t.Fatal("the store accepts messages without a bound")
		}
	}
}

// wantNoGoroutines waits until no goroutine runs in this package, except for tests.
func wantNoGoroutines(t *testing.T) {
	t.Helper()
	var left []string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		left = nil
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		for stack := range strings.SplitSeq(string(stacks), "\n\n") {
			if strings.Contains(stack, "peerlink/broker/embedded.") && !strings.Contains(stack, "testing.tRunner") {
				left = append(left, stack)
			}
		}
		if len(left) == 0 {
			return
		}
	}
	t.Errorf("goroutines are left:\n%s", strings.Join(left, "\n\n"))
}

// While the file can not be written, at most MaxPending messages, of at most
// MaxPendingBytes, are accepted; a larger message, or a larger batch, is written alone.
func TestPendingBounded(t *testing.T) {
	for _, test := range []struct {
		name string
		opts Options
		want int
	}{
		{"by number", Options{MaxPending: 25}, 25},
		{"by bytes", Options{MaxPendingBytes: 10 * (rowOverhead + 1000)}, 10},
		{"larger than all", Options{MaxPendingBytes: 300}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := openTest(t, test.opts)
			declareTest(t, s, "q")
			m := broker.Outgoing{Body: make([]byte, 1000-len("q"))}
			unlock := lockFile(t, s)
			accepted := 0
			for {
				ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
				err := s.Send(ctx, "to_debtors", "q", m, nil)
				cancel()
				if err != nil {
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Fatal(err)
					}
					break
				}
				accepted++
			}
			if accepted != test.want {
				t.Errorf("%d messages were accepted, want %d", accepted, test.want)
			}
			unlock()
			batch := slices.Repeat([]broker.Outgoing{m}, 100)
			if err := s.PutAll(testContext(t), "q", batch); err != nil {
				t.Error(err)
			}
			if depth := statsOf(t, s, "q").Depth; depth != int64(accepted+len(batch)) {
				t.Errorf("depth %d, want %d", depth, accepted+len(batch))
			}
			s.Close()
			if b := s.writer.applicationBudget; !b.messages.TryAcquire(b.maxMessages) || !b.bytes.TryAcquire(b.maxBytes) {
				t.Error("not all of the budget was released")
			}
		})
	}
}

// A transaction that failed has no effect: queues and bindings that it added to the cache
// are discarded.
func TestRollback(t *testing.T) {
	s := openTest(t, Options{})
	fails := errors.New("fails once")
	q := peer("aa", "to_debtors", "#", "new")
	tried := 0
	err := s.commit(testContext(t), func(t *tx) error {
		if tried++; tried > 1 {
			return nil
		}
		if err := t.bindPeer(q); err != nil {
			return err
		}
		return fails
	})
	if err != nil || tried != 2 {
		t.Fatalf("tried %d times, %v", tried, err)
	}
	if err := send(t, s, "to_debtors", "x", "1"); !errors.Is(err, broker.ErrUnroutable) {
		t.Errorf("got %v, want ErrUnroutable", err)
	}
	if err := s.Put(testContext(t), "new", broker.Outgoing{}); !errors.Is(err, broker.ErrNoQueue) {
		t.Errorf("got %v, want ErrNoQueue", err)
	}
}

// The size of the write-ahead log is bounded even if there is a long read: the log is
// restarted when the read has ended.
func TestWALBounded(t *testing.T) {
	t.Parallel()
	// The log is truncated from a quarter of the free space.
	s := openTest(t, Options{MinFree: 1 << 10, freeBytes: func(string) (int64, error) { return 4 << 20, nil }})
	declareTest(t, s, "q")
	walSize := func() int64 {
		info, err := os.Stat(s.path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	reader, err := openConn(s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.close()
	if err := reader.exec("BEGIN; SELECT * FROM queues"); err != nil {
		t.Fatal(err)
	}
	putN(t, s, "q", 1000)
	grown := walSize()
	if grown < 1<<18 {
		t.Fatalf("the write-ahead log has only %d bytes; the test does not work", grown)
	}
	if err := reader.exec("COMMIT"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		putN(t, s, "q", 1000)
	}
	if size := walSize(); size >= grown {
		t.Errorf("the write-ahead log has grown from %d to %d bytes", grown, size)
	}
}

// A file that SQLite can not repair does not cause a crash.
func TestDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "messages.db")
	s := openFile(t, path, Options{})
	publishBodies(t, s, "accounts_in", numbers(1000)...)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 3 * pageSize; i < len(data); i += 7 {
		data[i] ^= 0x55
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err = Open(path, Options{Logger: slog.New(make(reports, 10))})
	if err != nil {
		return // detected by Open
	}
	defer s.Close()
	if ms, err := s.Peek(testContext(t), "accounts_in", 1000); err == nil && len(ms) == 1000 {
		t.Error("the damage was not detected")
	}
}

// While the store can not be written for another reason than missing space, messages of
// applications are refused immediately. When writing is possible again, messages are
// stored.
func TestUnwritableRefuses(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("skipped: Windows moves no files that are open")
	}
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	m := broker.Outgoing{Type: "T", ContentType: "text/plain", Body: []byte("x")}
	away := s.path + "-away"
	if err := os.Rename(s.path, away); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), maxPause)
		if err := s.Put(ctx, "q", m); !errors.Is(err, ErrUnwritable) || !errors.Is(err, errGone) {
			t.Errorf("got %v, want ErrUnwritable", err)
		}
		cancel()
	}
	if err := os.Rename(away, s.path); err != nil {
		t.Fatal(err)
	}
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = s.Put(testContext(t), "q", m); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	wantQueued(t, s, "q", "x")
}

// A reserve that can not be created although there is space is reported, with the reason.
func TestReserveImpossible(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "messages.db")
	if err := os.MkdirAll(filepath.Join(path+"-reserve", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := openFile(t, path, Options{MinFree: 1 << 20, Reserve: 1 << 20, Service: true})
	if err := s.Health(); err == nil || !strings.Contains(err.Error(), "reserve of the message store can not be made") {
		t.Errorf("the problem is %v", err)
	}
}
