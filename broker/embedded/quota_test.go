package embedded

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"peerlink/broker"
)

// publishFrom publishes messages of a peer and waits until they are stored.
func publishFrom(t *testing.T, s *Store, peer string, count, size int) {
	t.Helper()
	done := make(chan error, count)
	p, err := s.Publish(testContext(t), func(n uint64, err error) {
		if err != nil || n == uint64(count) {
			done <- err
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for i := range count {
		m := &broker.Incoming{Peer: peer, Exchange: "accounts_in", RoutingKey: "1.2", Type: "AccountUpdate", ContentType: "application/json",
			Headers: []broker.Header{{Name: "debtor-id", Value: int64(i)}}, Body: []byte(strings.Repeat("x", size))}
		if err := p.Publish(testContext(t), m); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// checkUsage compares the counted sizes of some peers with their stored messages.
func checkUsage(t *testing.T, s *Store, peers ...string) {
	t.Helper()
	s.flush()
	for _, peer := range peers {
		var stored int64
		err := s.readers.use(testContext(t), func(r *readConn) error {
			for last := uint64(0); ; {
				messages, err := r.readMessages("accounts_in", last, 1<<20)
				if err != nil || len(messages) == 0 {
					return err
				}
				for _, m := range messages {
					last = m.Seq
					if m.Peer == peer {
						stored += m.counted
					}
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.quotas.usageOf(peer); got != stored {
			t.Errorf("%d bytes are counted of %s, %d are stored", got, peer, stored)
		}
	}
}

// The size of each peer's messages is counted correctly for all operations: storing,
// delivering, returning, acknowledging; and after a restart.
func TestUsageIsRight(t *testing.T) {
	s := openTest(t, Options{})
	publishFrom(t, s, "a", 100, 10)
	publishFrom(t, s, "b", 50, 3000)
	publishFrom(t, s, "", 5, 5)
	publishFrom(t, s, "a", 1, 0)
	checkUsage(t, s, "a", "b")
	if s.quotas.usageOf("a") < 100*(rowOverhead+10) || s.quotas.usageOf("") != 0 {
		t.Errorf("%d and %d bytes are counted", s.quotas.usageOf("a"), s.quotas.usageOf(""))
	}
	sub := subscribe(t, s, "accounts_in")
	_, seqs := take(t, sub, 120)
	ack(t, sub, seqs[:30]...)
	ack(t, sub, seqs[119], seqs[70], seqs[101])
	if err := sub.Nack(seqs[40:50]); err != nil {
		t.Fatal(err)
	}
	checkUsage(t, s, "a", "b")
	s = reopen(t, s)
	checkUsage(t, s, "a", "b")
	sub = subscribe(t, s, "accounts_in")
	_, seqs = take(t, sub, 123)
	ack(t, sub, seqs...)
	checkUsage(t, s, "a", "b")
	if s.quotas.usageOf("a") != 0 || s.quotas.usageOf("b") != 0 {
		t.Errorf("without messages, %d and %d bytes are counted", s.quotas.usageOf("a"), s.quotas.usageOf("b"))
	}
}

// Messages do not take much more in the file than what is counted of them, whatever their
// size: a row that is slightly too large for its page takes a page more. Except for rows that
// are almost too large, they do not take much less, either.
func TestUsageIsOfFile(t *testing.T) {
	t.Parallel()
	sizes := []int{50, 500, 1000, 1300, 1500, 4000, 6000, 12_000, 20_000, 60_000}
	for size := 1550; size < 2000; size += 30 {
		sizes = append(sizes, size)
	}
	for pages := 1; pages < 4; pages++ {
		for _, more := range []int{-300, -100, 0, 200, 700, 1100, 1500} {
			sizes = append(sizes, pages*pageSize+more)
		}
	}
	for _, size := range sizes {
		s := openTest(t, Options{})
		n := 2_000_000/(size+500) + 1
		publishFrom(t, s, "1234abcd", n, size)
		s.flush()
		checkpoint(t, s.path, "TRUNCATE")
		info, err := os.Stat(s.path)
		if err != nil {
			t.Fatal(err)
		}
		const empty = 12 * pageSize
		inFile, counted := info.Size()-empty, s.quotas.usageOf("1234abcd")
		if ratio := float64(inFile) / float64(counted); ratio > 1.3 || ratio < 0.45 && (size < 1900 || size > 1950) {
			t.Errorf("%d messages of %d bytes take %d bytes, %.2f of the %d counted", n, size, inFile, ratio, counted)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// admitted reports whether a peer may publish now.
func admitted(t *testing.T, s *Store, peer string) bool {
	t.Helper()
	ctx, cancel := context.WithCancel(testContext(t))
	cancel() // AwaitQuota checks ctx only if it has to wait
	err := s.AwaitQuota(ctx, peer)
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	return err == nil
}

// A peer whose messages fill its quota waits until the applications have taken an eighth
// of them, other peers do not; a restart changes nothing; and there is one log record.
func TestQuota(t *testing.T) {
	log := make(reports, 10)
	opts := Options{PeerQuota: 80_000, Logger: slog.New(log)}
	path := filepath.Join(t.TempDir(), "messages.db")
	s := openFile(t, path, opts)
	publishFrom(t, s, "a", 50, 1000)
	if !admitted(t, s, "a") {
		t.Error("the peer is not admitted below its quota")
	}
	publishFrom(t, s, "a", 20, 1000)
	log.want(t, "WARN the messages of a peer fill its quota")
	publishFrom(t, s, "a", 1, 1000)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openFile(t, path, opts)
	log.want(t, "WARN the messages of a peer fill its quota")
	if admitted(t, s, "a") || !admitted(t, s, "b") {
		t.Error("the peer with a full quota is admitted, or the other peer is not")
	}

	waiting := make(chan error, 1)
	go func() { waiting <- s.AwaitQuota(testContext(t), "a") }()
	sub := subscribe(t, s, "accounts_in")
	_, seqs := take(t, sub, 71)
	ack(t, sub, seqs[:10]...) // still more than seven eighths
	s.flush()
	if admitted(t, s, "a") {
		t.Error("admitted too early")
	}
	ack(t, sub, seqs[10:]...)
	if err := <-waiting; err != nil {
		t.Error(err)
	}
	log.want(t, "INFO messages of the peer are accepted again")
	if len(log) > 0 {
		t.Errorf("also logged: %s", <-log)
	}

	publishFrom(t, s, "a", 80, 1000)
	go func() { waiting <- s.AwaitQuota(testContext(t), "a") }()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; !errors.Is(err, broker.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// Messages that are not stored yet count for the quota of their peer: no more than fill it are
// accepted at once, however slowly they are stored. Other peers do not wait for them.
func TestUnstoredCount(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{PeerQuota: 10_000})
	other, err := openConn(s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	if err := other.exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	publish := func(ctx context.Context, peer string) error {
		p, err := s.Publish(testContext(t), func(uint64, error) {})
		if err != nil {
			t.Fatal(err)
		}
		return p.Publish(ctx, &broker.Incoming{Peer: peer, Exchange: "accounts_in", Body: make([]byte, 1000)})
	}
	canceled, cancel := context.WithCancel(testContext(t))
	cancel()
	for _, peer := range []string{"a", "b"} {
		for range 10_000 / (1000 + rowOverhead) {
			if err := publish(testContext(t), peer); err != nil {
				t.Fatal(err)
			}
		}
		if err := publish(canceled, peer); !errors.Is(err, context.Canceled) {
			t.Errorf("another message of %s: %v", peer, err)
		}
	}
	waiting := make(chan error, 1)
	go func() { waiting <- publish(testContext(t), "a") }()
	if err := other.exec("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; err != nil {
		t.Error(err)
	}
	checkUsage(t, s, "a", "b")
	if err := publish(canceled, "a"); !errors.Is(err, context.Canceled) || len(s.quotas.unstored.bytes) > 0 {
		t.Errorf("%v; not stored yet: %v", err, s.quotas.unstored.bytes)
	}
}

// A waiting peer may continue when another process has consumed its messages.
func TestQuotaFreedByOtherProcess(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{PeerQuota: 10_000})
	publishFrom(t, s, "a", 10, 1000)
	if admitted(t, s, "a") {
		t.Fatal("admitted with a full quota")
	}
	waiting := make(chan error, 1)
	go func() { waiting <- s.AwaitQuota(testContext(t), "a") }()
	other := openFile(t, s.path, Options{})
	sub := subscribe(t, other, "accounts_in")
	_, seqs := take(t, sub, 10)
	ack(t, sub, seqs...)
	if err := <-waiting; err != nil {
		t.Error(err)
	}
	checkUsage(t, s, "a")
}

// When another process has consumed messages, there is space in the window again,
// also without quotas.
func TestWindowFreedByOtherProcess(t *testing.T) {
	const minFree = 16 << 20
	s := openTest(t, Options{MinFree: minFree, freeBytes: func(string) (int64, error) { return minFree / 2, nil }})
	for admitted(t, s, "a") {
		publishFrom(t, s, "a", 20, 8000)
		s.flush()
	}
	waiting := make(chan error, 1)
	go func() { waiting <- s.AwaitQuota(testContext(t), "a") }()
	other := openFile(t, s.path, Options{})
	sub := subscribe(t, other, "accounts_in")
	_, seqs := take(t, sub, 100)
	ack(t, sub, seqs...)
	if err := <-waiting; err != nil {
		t.Error(err)
	}
}

// Free space in the file counts, as long as there is some for the write-ahead log. If the
// free space can not be determined, there is no limit.
func TestDiskIsFull(t *testing.T) {
	const least = 100
	for _, tt := range []struct {
		free, inside int64
		err          error
		want         bool
	}{
		{free: least, want: false},
		{free: least - 1, want: true},
		{free: least - 1, inside: 1, want: false},
		{free: least / 4, inside: least, want: false},
		{free: least/4 - 1, inside: 1000 * least, want: true},
		{free: 0, err: errors.ErrUnsupported, want: false},
	} {
		d := disk{minFree: least, log: slog.New(slog.DiscardHandler), freeBytes: func() (int64, error) { return tt.free, tt.err }}
		d.check(tt.inside, &reserve{})
		if got := d.problem() != nil; got != tt.want {
			t.Errorf("%d bytes free and %d in the file, %v: %v", tt.free, tt.inside, tt.err, got)
		}
	}
}

// When the disk is almost full, messages of peers are accepted while those that no application has
// consumed have less than the window, and the disk has space for as many.
func TestWindowOfPeers(t *testing.T) {
	const minFree = 16 << 20
	window := windowOf(minFree)
	for _, tt := range []struct {
		unconsumed, freeOnDisk int64
		cause                  fullCause
		want                   bool
	}{
		{window - 1, window, littleSpace, true},
		{window, window, littleSpace, false},
		{window - 1, window - 1, littleSpace, false},
		{0, window, reserveMissing, false},
	} {
		d := disk{minFree: minFree, almostFull: new(Problem), cause: tt.cause, freeOnDisk: tt.freeOnDisk}
		if got := d.hasRoomForPeers(tt.unconsumed); got != tt.want {
			t.Errorf("%d bytes not consumed, %d bytes free, cause %v: %v", tt.unconsumed, tt.freeOnDisk, tt.cause, got)
		}
	}
}

// While the reserve cannot be created, the problem has the reason of the last attempt, and the
// time of the first.
func TestProblemHasLastReason(t *testing.T) {
	d := disk{minFree: 1, log: slog.New(slog.DiscardHandler), freeBytes: func() (int64, error) { return math.MaxInt64, nil }}
	r := reserve{missing: true, err: errors.New("first reason")}
	d.check(0, &r)
	first := d.problem()
	r.err = errors.New("second reason")
	d.check(0, &r)
	if last := d.problem(); first.Err.Error() != "first reason" || last.Err != r.err || last.Since != first.Since {
		t.Errorf("the problem was %+v, and is %+v", first, last)
	}
}

// A quota that exceeds the free space of the disk does not protect other peers, and a
// warning is logged when the store is opened; otherwise there is none.
func TestQuotaWithoutSpace(t *testing.T) {
	log := make(reports, 10)
	openTest(t, Options{PeerQuota: 1, MinFree: 1, Logger: slog.New(log)})
	openTest(t, Options{PeerQuota: math.MaxInt64, Logger: slog.New(log)}) // without MinFree there is no limit to protect
	openTest(t, Options{PeerQuota: math.MaxInt64, MinFree: 1, Logger: slog.New(log)})
	log.want(t, "WARN the disk has less space for messages of peers than the quota")
	// MinFree does not count as free.
	half := Options{MinFree: 1000 << 20, Logger: slog.New(log), freeBytes: func(string) (int64, error) { return 1500 << 20, nil }}
	half.PeerQuota = 500 << 20
	openTest(t, half)
	half.PeerQuota++
	openTest(t, half)
	log.want(t, "WARN the disk has less space for messages of peers than the quota")
	if len(log) > 0 {
		t.Errorf("also logged: %v", <-log)
	}
}

// While the disk is almost full, received messages may only fill the window, and Health
// reports that, but messages of the node's own applications are accepted, until only a
// quarter of MinFree is left: then they are refused. Below a sixteenth, peers wait.
func TestDiskFloor(t *testing.T) {
	log := make(reports, 10)
	const floor = 1000 << 20
	var free atomic.Int64
	free.Store(floor / 2)
	s := openTest(t, Options{MinFree: floor, Logger: slog.New(log), freeBytes: func(string) (int64, error) { return free.Load(), nil }})
	log.want(t, "WARN the disk is almost full")
	if !admitted(t, s, "a") || s.Health() == nil {
		t.Errorf("not admitted, or the problem is %v", s.Health())
	}
	declareTest(t, s, "q")
	putBodies(t, s, "q", "still possible")
	free.Store(floor/4 - 1)
	if err := s.Put(testContext(t), "q", broker.Outgoing{}); !errors.Is(err, ErrFull) {
		t.Errorf("below the quarter: got %v, want ErrFull", err)
	}
	if err := send(t, s, "to_debtors", "q", "refused"); !errors.Is(err, ErrFull) {
		t.Errorf("below the quarter: got %v, want ErrFull", err)
	}
	wantQueued(t, s, "q", "still possible")
	if !admitted(t, s, "a") {
		t.Error("below the quarter: not admitted")
	}
	free.Store(floor/16 - 1)
	for deadline := time.Now().Add(20 * time.Second); admitted(t, s, "a"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("admitted below the window")
		}
	}

	free.Store(floor)
	ctx, cancel := context.WithTimeout(testContext(t), 10*time.Second)
	defer cancel()
	if err := s.AwaitQuota(ctx, "a"); err != nil {
		t.Errorf("with enough space again: %v", err)
	}
	log.want(t, "ERROR can not write the message store")
	log.want(t, "INFO the")
	log.want(t, "INFO the")
	putBodies(t, s, "q", "possible again")
}

// While messages of applications are refused because of missing space, messages of peers
// for which there is enough are stored without pauses.
func TestRefusalsDelayNoPeer(t *testing.T) {
	const floor = 1000 << 20
	s := openTest(t, Options{MinFree: floor, freeBytes: func(string) (int64, error) { return floor / 8, nil }})
	declareTest(t, s, "q")
	if err := s.Put(testContext(t), "q", broker.Outgoing{}); !errors.Is(err, ErrFull) {
		t.Fatalf("got %v, want ErrFull", err)
	}
	if err := refuseOnce(t, s, fullFailure{}, 100); !errors.Is(err, ErrFull) {
		t.Fatalf("got %v, want ErrFull", err)
	}
	start := time.Now()
	for range 20 {
		publishBodies(t, s, "accounts_in", "stored") // waits until it is durable
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("20 messages took %v", took)
	}
	if s.Health() == nil {
		t.Error("no problem, although messages of applications are refused")
	}
}

// roomForPeers is the largest size for which checkRoom returns nil, whatever is free on the disk
// and in the file, and whatever the write-ahead log needs.
func TestRoomForPeers(t *testing.T) {
	const minFree = 1600 // the window is 100
	for _, free := range []int64{0, 99, 100, 101, 103, 150, 500} {
		for _, inFile := range []int64{0, 1, 30, 400} {
			for _, wal := range []int64{0, 7, 50, 1000} {
				d := disk{minFree: minFree, freeBytes: func() (int64, error) { return free, nil }, walBytes: func() int64 { return wal }}
				room := d.roomForPeers(inFile)
				if room > 0 && d.checkRoom(fromPeer, room) != nil {
					t.Errorf("%d free, %d in the file, %d in the log: room for %d, which is refused", free, inFile, wal, room)
				}
				if d.checkRoom(fromPeer, room+1) == nil {
					t.Errorf("%d free, %d in the file, %d in the log: room for %d, but one more is accepted", free, inFile, wal, room)
				}
			}
		}
	}
}
