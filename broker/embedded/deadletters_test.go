package embedded

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"peerlink/broker"
)

// setAsideFirst makes the first n messages ever put into a queue dead letters, and returns their
// IDs. All of them must still be in the queue.
func setAsideFirst(t *testing.T, s *Store, queue string, n int) (ids []string) {
	t.Helper()
	if err := s.commit(testContext(t), func(t *tx) error {
		for seq := range n {
			if moved, err := t.addDeadLetter(queue, uint64(seq+1), "reason"); err != nil || !moved {
				return fmt.Errorf("message %d: %v", seq+1, err)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for n := range n {
		ids = append(ids, strconv.Itoa(n+1))
	}
	return ids
}

// asideBodies returns the bodies of the dead letters.
func asideBodies(t *testing.T, s *Store, queue string) (bodies []string) {
	t.Helper()
	for m, err := range s.List(testContext(t), queue) {
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, string(m.Body))
	}
	return bodies
}

// Info has the time of the oldest message that waits, and that of the oldest dead letter, each
// only while there is one.
func TestInfoTimes(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	before := time.Now().Truncate(time.Millisecond)
	check := func(waiting, deadLetters int) {
		t.Helper()
		info, err := s.Info(testContext(t), "q")
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []struct {
			what    string
			n, want int
			oldest  time.Time
		}{{"waiting messages", info.Waiting, waiting, info.OldestWaiting}, {"dead letters", info.DeadLetters, deadLetters, info.Oldest}} {
			if part.n != part.want || part.oldest.IsZero() != (part.n == 0) || part.n > 0 && (part.oldest.Before(before) || part.oldest.After(time.Now())) {
				t.Errorf("%d %s, the oldest of %v, want %d", part.n, part.what, part.oldest, part.want)
			}
		}
	}
	check(0, 0)
	putN(t, s, "q", 1)
	check(1, 0)
	c := consume(t, s, "q")
	ds, err := c.Next(testContext(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.DeadLetter(testContext(t), ds[0].Tag, "reason"); err != nil {
		t.Fatal(err)
	}
	check(0, 1)
}

// A retry by another process wakes a waiting consumer, and is counted like a message that
// an application sends.
func TestRetryOtherProcess(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	putBodies(t, s, "q", "1", "2")
	ids := setAsideFirst(t, s, "q", 2)
	c := consume(t, s, "q")
	got := make(chan error, 1)
	go func() {
		ds, err := c.Next(testContext(t), 10)
		if err == nil && (len(ds) != 2 || string(ds[0].Body) != "1") {
			err = fmt.Errorf("got %+v", ds)
		}
		got <- err
	}()
	other := openFile(t, s.path, Options{})
	if n, err := other.Retry(testContext(t), "q", ids); err != nil || n != 2 {
		t.Fatalf("%d messages were retried, %v, want 2", n, err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	if q := statsOf(t, s, "q"); q.Depth != 2 || q.SetAside != 0 || q.Total != 4 {
		t.Errorf("the queue has %+v", q)
	}
}

// Retry accepts an ID only in the exact form in which List has returned it.
func TestRetryID(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	putBodies(t, s, "q", "1")
	setAsideFirst(t, s, "q", 1)
	for _, id := range []string{"", "0", "-1", "01", "+1", " 1", "1.0", "1x", "2", "9223372036854775807", "9223372036854775808", "1 OR 1=1"} {
		if n, err := s.Retry(testContext(t), "q", []string{id}); n != 0 || !errors.Is(err, broker.ErrNoDeadLetter) {
			t.Errorf("%q: %d messages were retried, %v, want ErrNoDeadLetter", id, n, err)
		}
	}
	wantQueued(t, s, "q")
	if got := asideBodies(t, s, "q"); !slices.Equal(got, []string{"1"}) {
		t.Errorf("the dead letters are %q, want 1", got)
	}
}

// failOnce is an operation that fails its transaction the first time.
type failOnce struct{ failed bool }

func (o *failOnce) apply(*tx) error {
	if !o.failed {
		o.failed = true
		return errors.New("for the test")
	}
	return nil
}

func (o *failOnce) finish(error) {}

func (o *failOnce) cost() (kind, quantity) { return maintenance, quantity{} }

// A retry in a transaction that fails and is retried happens once, and is counted once, in
// order with other messages. A watcher gets all of them.
func TestRetryInTransaction(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	putBodies(t, s, "q", "1", "2", "3")
	ids := setAsideFirst(t, s, "q", 2)
	w := s.Watch("q")
	defer w.Close()

	// While the writer waits for the lock with one batch, the next is collected.
	unlock := lockFile(t, s)
	put := func(body string) <-chan error {
		settled := make(chan error, 1)
		if err := s.Send(testContext(t), "to_debtors", "q.1", outgoing(body)[0], func(err error) { settled <- err }); err != nil {
			t.Fatal(err)
		}
		return settled
	}
	_ = put("4")
	waitTaken(t, s)
	_ = put("5")
	type result struct {
		n   int
		err error
	}
	retried := make(chan result, 1)
	go func() {
		n, err := s.Retry(testContext(t), "q", append(ids, "77"))
		retried <- result{n, err}
	}()
	waiting := func() int {
		s.writer.mu.Lock()
		defer s.writer.mu.Unlock()
		return len(s.writer.batch)
	}
	for ctx := testContext(t); waiting() < 2; time.Sleep(time.Millisecond) { // the message and the retry
		if ctx.Err() != nil {
			t.Fatal("the retry does not reach the writer")
		}
	}
	if err := s.writer.submit(&failOnce{}); err != nil {
		t.Fatal(err)
	}
	last := put("6")
	unlock()
	if err := <-last; err != nil {
		t.Fatal(err)
	}
	if r := <-retried; r.n != 2 || !errors.Is(r.err, broker.ErrNoDeadLetter) {
		t.Errorf("%d messages were retried, %v, want 2, and ErrNoDeadLetter for one", r.n, r.err)
	}
	wantQueued(t, s, "q", "3", "4", "5", "1", "2", "6")
	for _, want := range []string{"4", "5", "1", "2", "6"} {
		m, missed, err := w.Next(testContext(t))
		if err != nil || missed != 0 || string(m.Body) != want {
			t.Fatalf("the watcher got %s, %d missed, %v, want %s", m.Body, missed, err, want)
		}
	}
	if q := statsOf(t, s, "q"); q.Depth != 6 || q.SetAside != 0 || q.Total != 8 {
		t.Errorf("the queue has %+v", q)
	}
}

// retryInChild is the child process of TestKillRetry: it retries the messages of queue q, one
// at a time, and prints the body of each.
func retryInChild(s *Store) error {
	for m, err := range s.List(context.Background(), "q") {
		if err != nil {
			return err
		}
		if _, err := s.Retry(context.Background(), "q", []string{m.ID}); err != nil {
			return err
		}
		printLine(string(m.Body))
	}
	return nil
}

// When a process is killed during retries, each message is in one place, in order, and the
// messages that it has printed are in the queue.
func TestKillRetry(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "messages.db")
	const total = 2000
	s := openFile(t, path, Options{})
	declareTest(t, s, "q")
	putBodies(t, s, "q", numbers(total)...)
	setAsideFirst(t, s, "q", total)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for round := range 4 {
		printed, err := strconv.Atoi(killAfter(t, startChild(t, "retry", path), 1+25*round))
		if err != nil {
			t.Fatal(err)
		}
		s := openFile(t, path, Options{})
		back, aside := queued(t, s, "q"), asideBodies(t, s, "q")
		if len(back) < printed || !slices.Equal(append(slices.Clone(back), aside...), numbers(total)) {
			t.Fatalf("of %d messages %d were retried, and %d are dead letters; the process has printed %d", total, len(back), len(aside), printed)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
