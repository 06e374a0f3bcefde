package brokertest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"peerlink/broker"
)

// deadLetters returns the broker as [broker.DeadLetters].
func deadLetters(t testing.TB, b broker.Broker) broker.DeadLetters {
	t.Helper()
	s, ok := b.(broker.DeadLetters)
	if !ok {
		t.Fatalf("%T does not implement broker.DeadLetters", b)
	}
	return s
}

// withDeadLetters creates the queue of a peer with messages "1" to "n", and makes the chosen ones
// dead letters, each with the reason "reason " and its number.
func (f Fixture) withDeadLetters(t testing.TB, n int, chosen ...int) (queue string) {
	t.Helper()
	queue = f.queueWith(t, n)
	c := consume(t, f.Broker, queue)
	_, tags := take(t, c, n)
	for _, i := range chosen {
		if err := c.DeadLetter(testContext(t), tags[i-1], fmt.Sprint("reason ", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return queue
}

// listDeadLetters returns the dead letters of a queue.
func listDeadLetters(t testing.TB, b broker.Broker, queue string) []broker.DeadLetter {
	t.Helper()
	var found []broker.DeadLetter
	for m, err := range deadLetters(t, b).List(testContext(t), queue) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, m)
	}
	return found
}

func bodiesOf(messages []broker.DeadLetter) []string {
	var bodies []string
	for _, m := range messages {
		bodies = append(bodies, string(m.Body))
	}
	return bodies
}

func idsOf(messages []broker.DeadLetter) []string {
	var ids []string
	for _, m := range messages {
		ids = append(ids, m.ID)
	}
	return ids
}

// wantDeadLetters checks which messages of a queue are dead letters.
func wantDeadLetters(t testing.TB, b broker.Broker, queue string, want ...string) {
	t.Helper()
	if got := bodiesOf(listDeadLetters(t, b, queue)); !slices.Equal(got, want) {
		t.Errorf("the dead letters of queue %[2]s are %[1]q, want %[3]q", got, queue, want)
	}
}

// wantInfo waits until a queue has these numbers of waiting messages and dead letters, and
// returns its QueueInfo: the deliveries of a closed consumer may not have returned yet.
func wantInfo(t testing.TB, b broker.Broker, queue string, waiting, dead int) broker.QueueInfo {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		info, err := deadLetters(t, b).Info(testContext(t), queue)
		if err != nil {
			t.Fatal(err)
		}
		if info.Waiting == waiting && info.DeadLetters == dead {
			return info
		}
		if time.Now().After(deadline) {
			t.Fatalf("queue %s has %+v, want %d waiting messages and %d dead letters", queue, info, waiting, dead)
		}
	}
}

// List returns the dead letters in order, unchanged, with time and reason, and changes
// nothing: the IDs stay the same for any number of calls, in any process, also if an
// iteration ends early.
func testDeadLetters(t *testing.T, f Fixture) {
	before := time.Now().Truncate(time.Second)
	queue := f.withDeadLetters(t, 10, 2, 5, 6, 9)
	info := wantInfo(t, f.Broker, queue, 6, 4)
	if !info.Oldest.IsZero() && (info.Oldest.Before(before) || info.Oldest.After(time.Now())) {
		t.Errorf("the first message became a dead letter at %v", info.Oldest)
	}
	if at := info.OldestWaiting; !at.IsZero() && (at.Before(before) || at.After(time.Now())) {
		t.Errorf("the oldest waiting message arrived at %v", at)
	}
	found := listDeadLetters(t, f.Broker, queue)
	if got := bodiesOf(found); !slices.Equal(got, []string{"2", "5", "6", "9"}) {
		t.Fatalf("the dead letters are %q, want 2, 5, 6, 9", got)
	}
	ids := idsOf(found)
	for i, m := range found {
		if m.Type != "AccountUpdate" || m.ContentType != "application/json" || m.Reason != "reason "+string(m.Body) {
			t.Errorf("the dead letter is %+v", m)
		}
		if m.At.Before(before) || m.At.After(time.Now()) {
			t.Errorf("message %s became a dead letter at %v", m.Body, m.At)
		}
		if m.ID == "" || slices.Contains(ids[:i], m.ID) {
			t.Errorf("the IDs are %q, want different ones", ids)
		}
	}
	for range deadLetters(t, f.Broker).List(testContext(t), queue) {
		break
	}
	b := f.Reopen(t)
	if again := idsOf(listDeadLetters(t, b, queue)); !slices.Equal(again, ids) {
		t.Errorf("the IDs were %q, and are %q", ids, again)
	}
	wantInfo(t, b, queue, 6, 4)
	if got, _ := take(t, consume(t, b, queue), 6); !slices.Equal(got, []string{"1", "3", "4", "7", "8", "10"}) {
		t.Errorf("the queue has %q", got)
	}
}

// Retried messages are at the end of the queue, unchanged, in their old order, regardless
// of the order of the IDs; a waiting consumer gets them. The other dead letters stay.
func testDeadLettersRetry(t *testing.T, f Fixture) {
	queue := f.withDeadLetters(t, 6, 1, 2, 3, 4)
	ids := idsOf(listDeadLetters(t, f.Broker, queue))
	c := consume(t, f.Broker, queue)
	take(t, c, 2)
	type result struct {
		ds  []broker.Delivery
		err error
	}
	waiting := make(chan result, 1)
	go func() {
		ds, err := c.Next(testContext(t), 1)
		waiting <- result{ds, err}
	}()
	n, err := deadLetters(t, f.Broker).Retry(testContext(t), queue, []string{ids[3], ids[0], ids[3], ids[2]})
	if err != nil || n != 3 {
		t.Fatalf("%d messages were retried, %v, want 3", n, err)
	}
	first := <-waiting
	if first.err != nil || len(first.ds) != 1 {
		t.Fatalf("got %d messages, %v", len(first.ds), first.err)
	}
	if d := first.ds[0]; d.Type != "AccountUpdate" || d.ContentType != "application/json" {
		t.Errorf("got %+v", d)
	}
	rest, tags := take(t, c, 2)
	if got := append([]string{string(first.ds[0].Body)}, rest...); !slices.Equal(got, []string{"1", "3", "4"}) {
		t.Errorf("the retried messages are %q, want 1, 3, 4", got)
	}
	wantDeadLetters(t, f.Broker, queue, "2")
	if err := c.Confirm(tags[1]); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	wantInfo(t, f.Broker, queue, 0, 1)
}

// Drop deletes the given dead letters only. If some of the IDs do not exist, it returns
// ErrNoDeadLetter, and drops the others.
func testDeadLettersDrop(t *testing.T, f Fixture) {
	queue := f.withDeadLetters(t, 5, 1, 2, 3, 4)
	ids := idsOf(listDeadLetters(t, f.Broker, queue))
	s := deadLetters(t, f.Broker)
	if n, err := s.Drop(testContext(t), queue, nil); err != nil || n != 0 {
		t.Errorf("without an ID: %d messages were dropped, %v", n, err)
	}
	if n, err := s.Drop(testContext(t), queue, []string{"999999", ids[1], "", "x'; --", "-1"}); n != 1 || !errors.Is(err, broker.ErrNoDeadLetter) {
		t.Errorf("%d messages were dropped, %v, want 1 and ErrNoDeadLetter", n, err)
	}
	for what, do := range map[string]func() (int, error){
		"drop":  func() (int, error) { return s.Drop(testContext(t), queue, ids[1:2]) },
		"retry": func() (int, error) { return s.Retry(testContext(t), queue, ids[1:2]) },
	} {
		if n, err := do(); n != 0 || !errors.Is(err, broker.ErrNoDeadLetter) {
			t.Errorf("%s of a dropped message: %d messages, %v, want ErrNoDeadLetter", what, n, err)
		}
	}
	wantDeadLetters(t, f.Broker, queue, "1", "3", "4")
	b := f.Reopen(t)
	wantDeadLetters(t, b, queue, "1", "3", "4")
	wantInfo(t, b, queue, 1, 3)
	if got, _ := take(t, consume(t, b, queue), 1); got[0] != "5" {
		t.Errorf("the queue has %q, want 5", got)
	}
}

// A message may become a dead letter and be retried any number of times, and stays the
// same.
func testDeadLettersRetryAgain(t *testing.T, f Fixture) {
	queue := f.withDeadLetters(t, 1, 1)
	c := consume(t, f.Broker, queue)
	for round := range 5 {
		found := listDeadLetters(t, f.Broker, queue)
		if len(found) != 1 {
			t.Fatalf("round %d: the dead letters are %q, want one", round, bodiesOf(found))
		}
		if n, err := deadLetters(t, f.Broker).Retry(testContext(t), queue, idsOf(found)); err != nil || n != 1 {
			t.Fatalf("round %d: %d were retried, %v", round, n, err)
		}
		wantDeadLetters(t, f.Broker, queue)
		ds, err := c.Next(testContext(t), 10)
		if err != nil || len(ds) != 1 || string(ds[0].Body) != "1" || ds[0].Type != "AccountUpdate" {
			t.Fatalf("round %d: got %+v, %v", round, ds, err)
		}
		reason := fmt.Sprint("again ", round)
		if err := c.DeadLetter(testContext(t), ds[0].Tag, reason); err != nil {
			t.Fatal(err)
		}
		if found = listDeadLetters(t, f.Broker, queue); len(found) != 1 || found[0].Reason != reason {
			t.Errorf("round %d: the dead letters are %+v", round, found)
		}
	}
}

// Identical messages, whether or not they have the same ID, are all retried, each once.
func testDeadLettersAlike(t *testing.T, f Fixture) {
	q := f.peer("1234abcd", "00.00.01")
	f.bind(t, q)
	f.send(t, q, "same", "same", "same")
	queue := q.Queues[0]
	c := consume(t, f.Broker, queue)
	_, tags := take(t, c, 3)
	for _, tag := range tags {
		if err := c.DeadLetter(testContext(t), tag, "reason"); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := deadLetters(t, f.Broker).Retry(testContext(t), queue, idsOf(listDeadLetters(t, f.Broker, queue))); err != nil || n != 3 {
		t.Fatalf("%d messages were retried, %v, want 3", n, err)
	}
	take(t, c, 3)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	wantInfo(t, f.Broker, queue, 3, 0)
}

// More dead letters than fit into one step are listed, retried and dropped completely and
// in order.
func testDeadLettersMany(t *testing.T, f Fixture) {
	const count = 600 // more than brokers list, retry or drop in one step
	var all []int
	for n := range count {
		all = append(all, n+1)
	}
	queue := f.withDeadLetters(t, count, all...)
	found := listDeadLetters(t, f.Broker, queue)
	if !slices.Equal(bodiesOf(found), numbers(1, count)) {
		t.Fatalf("%d messages are dead letters, want 1 to %d", len(found), count)
	}
	s, ids := deadLetters(t, f.Broker), idsOf(found)
	if n, err := s.Drop(testContext(t), queue, ids[:100]); err != nil || n != 100 {
		t.Errorf("%d messages were dropped, %v, want 100", n, err)
	}
	if n, err := s.Retry(testContext(t), queue, ids[100:]); err != nil || n != count-100 {
		t.Errorf("%d messages were retried, %v, want %d", n, err, count-100)
	}
	wantInfo(t, f.Broker, queue, count-100, 0)
	if got, _ := take(t, consume(t, f.Broker, queue), count-100); !slices.Equal(got, numbers(101, count)) {
		t.Errorf("%d messages were retried, want 101 to %d", len(got), count)
	}
}

// ErrNoQueue is returned for a queue that does not exist.
func testDeadLettersNoQueue(t *testing.T, f Fixture) {
	s, nowhere := deadLetters(t, f.Broker), "nowhere"+f.Suffix
	_, infoErr := s.Info(testContext(t), nowhere)
	_, retryErr := s.Retry(testContext(t), nowhere, []string{"1"})
	_, dropErr := s.Drop(testContext(t), nowhere, []string{"1"})
	var listErr error
	for _, listErr = range s.List(testContext(t), nowhere) {
	}
	for what, err := range map[string]error{"Info": infoErr, "Retry": retryErr, "Drop": dropErr, "List": listErr} {
		if !errors.Is(err, broker.ErrNoQueue) {
			t.Errorf("%s: got %v, want ErrNoQueue", what, err)
		}
	}
}

// A closed broker lists no dead letters, and moves none.
func testDeadLettersClosed(t *testing.T, f Fixture) {
	queue := f.withDeadLetters(t, 1, 1)
	ids := idsOf(listDeadLetters(t, f.Broker, queue))
	if err := f.Broker.Close(); err != nil {
		t.Fatal(err)
	}
	s := deadLetters(t, f.Broker)
	_, infoErr := s.Info(testContext(t), queue)
	_, retryErr := s.Retry(testContext(t), queue, ids)
	_, dropErr := s.Drop(testContext(t), queue, ids)
	var listErr error
	for _, listErr = range s.List(testContext(t), queue) {
	}
	for what, err := range map[string]error{"Info": infoErr, "Retry": retryErr, "Drop": dropErr, "List": listErr} {
		if !errors.Is(err, broker.ErrClosed) {
			t.Errorf("%s: got %v, want ErrClosed", what, err)
		}
	}
	wantDeadLetters(t, f.Reopen(t), queue, "1")
}
