// Package brokertest tests the behaviour that every [broker.Broker] must have. A package
// that implements one calls Run:
//
//	func TestBroker(t *testing.T) { brokertest.Run(t, open) }
//
// where open returns a [Fixture]: a broker, and access to the applications' ends of its
// queues, which are not part of the interface because a link does not need them.
package brokertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"peerlink/broker"
)

// patience bounds the wait for an expected event.
const patience = 30 * time.Second

// A Fixture is a broker for one test, with access to its messages.
type Fixture struct {
	// Broker is open, and implements [broker.DeadLetters] too. Its Publisher's Publish
	// should block at no more than a few hundred messages that are not durable.
	Broker broker.Broker
	// Suffix is appended to the names of all exchanges and peers, so that tests that share
	// a server use different ones. The exchange for received messages, "accounts_in" with
	// the suffix, must exist.
	Suffix string

	// Send publishes messages as an application does, and returns when all are durable. It
	// returns [broker.ErrUnroutable] if one of them is routed to no queue.
	Send func(t testing.TB, exchange, routingKey string, messages ...broker.Outgoing) error
	// Receive consumes n messages of the inbox as an application does.
	Receive func(t testing.TB, n int) []broker.Incoming
	// DeadLetters returns the dead letters of a queue.
	DeadLetters func(t testing.TB, queue string) []DeadLetter
	// Reopen closes the broker and opens it again, or another one with the same messages. The
	// other functions use this one from then on.
	Reopen func(t testing.TB) broker.Broker
	// Stall makes the broker unable to store messages until resume is called. It may be
	// nil if it is tested with another fixture of the same broker.
	Stall func(t testing.TB) (resume func())
	// NoInbox is an exchange for received messages without bindings; "" if the
	// broker has no such exchanges.
	NoInbox string
}

// DeadLetter is a dead letter, as an application sees it.
type DeadLetter struct {
	broker.Outgoing
	Reason string
}

// Run tests a broker. open is called for each test, and must return an empty broker.
func Run(t *testing.T, open func(t *testing.T) Fixture) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, f Fixture)
	}{
		{"Order", testOrder},
		{"Routing", testRouting},
		{"Fanout", testFanout},
		{"BindChanged", testBindChanged},
		{"Unbind", testUnbind},
		{"Confirm", testConfirm},
		{"ConfirmBeforeClose", testConfirmBeforeClose},
		{"UnconfirmedReturn", testUnconfirmedReturn},
		{"DeadLetter", testDeadLetter},
		{"DeadLetterFails", testDeadLetterFails},
		{"Exclude", testExclude},
		{"NextWaits", testNextWaits},
		{"NoQueue", testNoQueue},
		{"InUse", testInUse},
		{"Publish", testPublish},
		{"Unroutable", testUnroutable},
		{"Invalid", testInvalid},
		{"PublisherClosed", testPublisherClosed},
		{"Stalled", testStalled},
		{"ClosedWhileStalled", testClosedWhileStalled},
		{"Closed", testClosed},
		{"Concurrent", testConcurrent},
		{"DeadLetters", testDeadLetters},
		{"DeadLettersRetry", testDeadLettersRetry},
		{"DeadLettersDrop", testDeadLettersDrop},
		{"DeadLettersRetryAgain", testDeadLettersRetryAgain},
		{"DeadLettersAlike", testDeadLettersAlike},
		{"DeadLettersMany", testDeadLettersMany},
		{"DeadLettersNoQueue", testDeadLettersNoQueue},
		{"DeadLettersClosed", testDeadLettersClosed},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// testContext ends long after all expected events, so that a test that would block for
// ever fails.
func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// peer returns the objects of a peer that gets messages with routing keys that begin with
// key.
func (f Fixture) peer(id, key string) broker.PeerBinding {
	id += f.Suffix
	return broker.PeerBinding{
		PeerID: id, Prefix: "aa", Exchange: "to_creditors" + f.Suffix, BindingKey: key + ".#",
		Queues: []string{"peer." + id + ".0"},
	}
}

func (f Fixture) bind(t testing.TB, q broker.PeerBinding) {
	t.Helper()
	if err := f.Broker.Bind(testContext(t), q); err != nil {
		t.Fatal(err)
	}
}

// queueWith creates the queue of a peer, with messages "1" to "n" in it.
func (f Fixture) queueWith(t testing.TB, n int) (queue string) {
	t.Helper()
	q := f.peer("1234abcd", "00.00.01")
	f.bind(t, q)
	f.send(t, q, numbers(1, n)...)
	return q.Queues[0]
}

func outgoing(bodies ...string) []broker.Outgoing {
	var ms []broker.Outgoing
	for _, b := range bodies {
		ms = append(ms, broker.Outgoing{Type: "AccountUpdate", ContentType: "application/json", Body: []byte(b)})
	}
	return ms
}

// send sends messages to a peer.
func (f Fixture) send(t testing.TB, q broker.PeerBinding, bodies ...string) {
	t.Helper()
	key := ""
	if !q.Fanout {
		key = q.BindingKey[:len(q.BindingKey)-len("#")] + "07"
	}
	if err := f.Send(t, q.Exchange, key, outgoing(bodies...)...); err != nil {
		t.Fatal(err)
	}
}

// numbers returns the numbers from first to last.
func numbers(first, last int) []string {
	var s []string
	for n := first; n <= last; n++ {
		s = append(s, fmt.Sprint(n))
	}
	return s
}

func consume(t testing.TB, b broker.Broker, queue string) broker.Consumer {
	t.Helper()
	c, err := b.Consume(testContext(t), queue)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// consumeAgain is like consume, for a queue whose consumer was closed with its broker: the
// new broker may detect only after some time that the queue is free.
func consumeAgain(t testing.TB, b broker.Broker, queue string) broker.Consumer {
	t.Helper()
	ctx := testContext(t)
	for {
		c, err := b.Consume(ctx, queue)
		if err == nil {
			t.Cleanup(func() { c.Close() })
			return c
		}
		if !errors.Is(err, broker.ErrInUse) || ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

// take consumes n messages of a queue, without confirming them.
func take(t testing.TB, c broker.Consumer, n int) (bodies []string, tags []uint64) {
	t.Helper()
	for len(bodies) < n {
		ds, err := c.Next(testContext(t), n-len(bodies))
		if err != nil {
			t.Fatalf("after %d messages: %v", len(bodies), err)
		}
		if len(ds) == 0 || len(ds) > n-len(bodies) {
			t.Fatalf("got %d messages at once, want 1 to %d", len(ds), n-len(bodies))
		}
		for _, d := range ds {
			bodies = append(bodies, string(d.Body))
			tags = append(tags, d.Tag)
		}
	}
	return bodies, tags
}

// wantQueued checks that a queue has these messages, and no others. To find the end, it sends
// "the last" to the queue's exchange. It removes all messages.
func wantQueued(t testing.TB, f Fixture, b broker.Broker, q broker.PeerBinding, want ...string) {
	t.Helper()
	f.send(t, q, "the last")
	c := consume(t, b, q.Queues[0])
	got, tags := take(t, c, len(want)+1)
	if want = append(slices.Clone(want), "the last"); !slices.Equal(got, want) {
		t.Errorf("queue %s has %q, want %q", q.Queues[0], got, want)
	}
	if err := c.Confirm(tags[len(tags)-1]); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// Messages are delivered in the order in which they were sent, unchanged, each once, with
// increasing tags.
func testOrder(t *testing.T, f Fixture) {
	q := f.peer("1234abcd", "00.00.01")
	f.bind(t, q)
	m := broker.Outgoing{Type: "ConfigureAccount", ContentType: "application/json", Body: []byte("\x00 \xff")}
	if err := f.Send(t, q.Exchange, "00.00.01.02", m); err != nil {
		t.Fatal(err)
	}
	f.send(t, q, numbers(1, 500)...)
	c := consume(t, f.Broker, q.Queues[0])
	ds, err := c.Next(testContext(t), 1)
	if err != nil || len(ds) != 1 {
		t.Fatalf("got %d messages, %v, want 1", len(ds), err)
	}
	if d := ds[0]; d.Type != m.Type || d.ContentType != m.ContentType || string(d.Body) != string(m.Body) {
		t.Errorf("got %+v, want %+v", d, m)
	}
	got, tags := take(t, c, 500)
	if !slices.Equal(got, numbers(1, 500)) {
		t.Errorf("got %q, want 1 to 500", got)
	}
	if before := ds[0].Tag; tags[0] <= before || !slices.IsSorted(tags) || len(slices.Compact(tags)) != 500 {
		t.Errorf("after tag %d: got tags %d, want larger ones in increasing order", before, tags)
	}
}

// A message is routed to the peer whose binding key matches its routing key, and to no
// queue if there is none.
func testRouting(t *testing.T, f Fixture) {
	one, two := f.peer("1", "00.00.01"), f.peer("2", "00.00.02")
	f.bind(t, one)
	f.bind(t, two)
	f.send(t, one, "a")
	f.send(t, two, "b")
	f.send(t, one, "c")
	if err := f.Send(t, one.Exchange, "00.00.03.07", outgoing("d")...); !errors.Is(err, broker.ErrUnroutable) {
		t.Errorf("got %v, want ErrUnroutable", err)
	}
	wantQueued(t, f, f.Broker, one, "a", "c")
	wantQueued(t, f, f.Broker, two, "b")
}

// A fanout exchange ignores routing keys.
func testFanout(t *testing.T, f Fixture) {
	one, two := f.peer("1", ""), f.peer("2", "")
	for _, q := range []*broker.PeerBinding{&one, &two} {
		q.Prefix, q.Exchange, q.Fanout, q.BindingKey = "da", "debtors_out"+f.Suffix, true, ""
		f.bind(t, *q)
	}
	if err := f.Send(t, one.Exchange, "any.key", outgoing("a")...); err != nil {
		t.Fatal(err)
	}
	wantQueued(t, f, f.Broker, one, "a")
	wantQueued(t, f, f.Broker, two, "a", "the last") // the first peer's
}

// A repeated Bind does not change queued messages. A changed binding key replaces the old
// one.
func testBindChanged(t *testing.T, f Fixture) {
	before := f.peer("1", "00.00.01")
	f.bind(t, before)
	f.send(t, before, "a")
	f.bind(t, before)
	after := f.peer("1", "00.00.02")
	f.bind(t, after)
	f.send(t, after, "b")
	if err := f.Send(t, before.Exchange, "00.00.01.07", outgoing("c")...); !errors.Is(err, broker.ErrUnroutable) {
		t.Errorf("got %v, want ErrUnroutable", err)
	}
	wantQueued(t, f, f.Broker, after, "a", "b")
}

// After Unbind, no message is routed to the peer's queue, and queued messages stay. Unbind
// may be called twice, or for a peer without Bind, and Bind may follow.
func testUnbind(t *testing.T, f Fixture) {
	q := f.peer("1", "00.00.01")
	if err := f.Broker.Unbind(testContext(t), q); err != nil {
		t.Errorf("Unbind of a peer without Bind: %v", err)
	}
	f.bind(t, q)
	f.send(t, q, "a")
	for range 2 {
		if err := f.Broker.Unbind(testContext(t), q); err != nil {
			t.Fatal(err)
		}
		if err := f.Send(t, q.Exchange, "00.00.01.07", outgoing("b")...); !errors.Is(err, broker.ErrUnroutable) {
			t.Errorf("got %v, want ErrUnroutable", err)
		}
	}
	f.bind(t, q)
	wantQueued(t, f, f.Broker, q, "a")
}

// A confirmation removes the message and all earlier deliveries, and no others. It may
// come late or twice, but a message that was not delivered can not be confirmed.
func testConfirm(t *testing.T, f Fixture) {
	queue := f.queueWith(t, 100)
	c := consume(t, f.Broker, queue)
	_, tags := take(t, c, 80)
	for _, n := range []int{10, 60, 30, 60} {
		if err := c.Confirm(tags[n-1]); err != nil {
			t.Errorf("confirm message %d: %v", n, err)
		}
	}
	if err := c.Confirm(tags[79] + 100); err == nil {
		t.Error("Confirm accepts a tag that was never delivered")
	}
	if got, _ := take(t, c, 20); !slices.Equal(got, numbers(81, 100)) {
		t.Errorf("got %q, want 81 to 100", got)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if got, _ := take(t, consume(t, f.Broker, queue), 40); !slices.Equal(got, numbers(61, 100)) {
		t.Errorf("the next consumer got %q, want 61 to 100", got)
	}
}

// After Close, confirmed messages, including the last ones, are not delivered again;
// unconfirmed ones are.
func testConfirmBeforeClose(t *testing.T, f Fixture) {
	queue := f.queueWith(t, 10)
	c := consume(t, f.Broker, queue)
	_, tags := take(t, c, 10)
	for _, tag := range tags[:7] {
		if err := c.Confirm(tag); err != nil {
			t.Fatal(err)
		}
	}
	b := f.Reopen(t)
	if got, _ := take(t, consumeAgain(t, b, queue), 3); !slices.Equal(got, numbers(8, 10)) {
		t.Errorf("got %q, want 8 to 10", got)
	}
}

// Deliveries that are unconfirmed at Close return to their positions in the queue, no
// matter how often.
func testUnconfirmedReturn(t *testing.T, f Fixture) {
	queue := f.queueWith(t, 30)
	for n := range 3 {
		c := consume(t, f.Broker, queue)
		if got, _ := take(t, c, 10*n+5); !slices.Equal(got, numbers(1, 10*n+5)) {
			t.Errorf("got %q, want 1 to %d", got, 10*n+5)
		}
		for range 2 {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, _ := take(t, consume(t, f.Broker, queue), 30); !slices.Equal(got, numbers(1, 30)) {
		t.Errorf("got %q, want 1 to 30", got)
	}
}

// A dead letter leaves the queue, unchanged and with the reason. The messages before and
// after it stay, and can be confirmed as if it still existed.
func testDeadLetter(t *testing.T, f Fixture) {
	queue := f.queueWith(t, 10)
	c := consume(t, f.Broker, queue)
	_, tags := take(t, c, 8)
	deadLetter := func(n int) error { return c.DeadLetter(testContext(t), tags[n-1], fmt.Sprint("reason ", n)) }
	confirm := func(n int) {
		t.Helper()
		if err := c.Confirm(tags[n-1]); err != nil {
			t.Errorf("confirm message %d: %v", n, err)
		}
	}
	for _, n := range []int{1, 3, 5, 6} { // the first, one in the middle, the one to be confirmed, a later one
		if err := deadLetter(n); err != nil {
			t.Fatalf("dead-letter message %d: %v", n, err)
		}
	}
	confirm(1)
	confirm(5)
	for _, n := range []int{1, 3, 4, 6} { // confirmed before, or dead letters already
		if err := deadLetter(n); err == nil {
			t.Errorf("message %d became a dead letter again", n)
		}
	}
	if err := c.DeadLetter(testContext(t), tags[7]+100, "reason"); err == nil {
		t.Error("DeadLetter accepts a tag that was never delivered")
	}
	if err := deadLetter(8); err != nil {
		t.Fatal(err)
	}
	confirm(6)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if got, _ := take(t, consume(t, f.Broker, queue), 3); !slices.Equal(got, []string{"7", "9", "10"}) {
		t.Errorf("the next consumer got %q, want 7, 9, 10", got)
	}
	var got []string
	for _, a := range f.DeadLetters(t, queue) {
		if a.Type != "AccountUpdate" || a.ContentType != "application/json" || a.Reason != "reason "+string(a.Body) {
			t.Errorf("the dead letter is %+v", a)
		}
		got = append(got, string(a.Body))
	}
	if want := []string{"1", "3", "5", "6", "8"}; !slices.Equal(got, want) {
		t.Errorf("the dead letters are %q, want %q", got, want)
	}
}

// A message whose DeadLetter has failed is not lost by confirmations of later messages:
// DeadLetter may be called again; otherwise the message is in its queue again, or has
// become a dead letter after all.
func testDeadLetterFails(t *testing.T, f Fixture) {
	queue := f.queueWith(t, 10)
	c := consume(t, f.Broker, queue)
	_, tags := take(t, c, 10)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, n := range []int{3, 5, 6} {
		if err := c.DeadLetter(ended, tags[n-1], "not yet"); err == nil {
			t.Logf("message %d is a dead letter already", n)
		}
	}
	for _, n := range []int{4, 9, 10} {
		if err := c.Confirm(tags[n-1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.DeadLetter(testContext(t), tags[4], "again"); err != nil {
		t.Logf("message 5 is a dead letter already: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	f.send(t, f.peer("1234abcd", "00.00.01"), "the last")
	found := make(map[string]bool)
	for next := consume(t, f.Broker, queue); !found["the last"]; {
		got, _ := take(t, next, 1)
		found[got[0]] = true
	}
	for _, a := range f.DeadLetters(t, queue) {
		found[string(a.Body)] = true
	}
	delete(found, "the last")
	if want := []string{"3", "5", "6"}; !slices.Equal(slices.Sorted(maps.Keys(found)), want) {
		t.Errorf("%v are in the queue or dead letters, want %q", found, want)
	}
}

// A message that is excluded is not removed by confirmations of later messages. It may
// become a dead letter; otherwise it is in its queue again.
func testExclude(t *testing.T, f Fixture) {
	queue := f.queueWith(t, 5)
	c := consume(t, f.Broker, queue)
	_, tags := take(t, c, 5)
	for _, n := range []int{2, 4} {
		if err := c.Exclude(tags[n-1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Exclude(tags[4] + 1); err == nil {
		t.Error("Exclude accepts a tag that was never delivered")
	}
	if err := c.Confirm(tags[4]); err != nil {
		t.Fatal(err)
	}
	if err := c.Exclude(tags[0]); err == nil {
		t.Error("Exclude accepts the tag of a confirmed message")
	}
	if err := c.DeadLetter(testContext(t), tags[1], "reason"); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	f.send(t, f.peer("1234abcd", "00.00.01"), "the last")
	if got, _ := take(t, consume(t, f.Broker, queue), 2); got[0] != "4" || got[1] != "the last" {
		t.Errorf("%q are in the queue, want 4 and the last", got)
	}
	if aside := f.DeadLetters(t, queue); len(aside) != 1 || string(aside[0].Body) != "2" {
		t.Errorf("%+v are dead letters, want 2", aside)
	}
}

// Next returns when a message arrives, when its context ends, and when its consumer is
// closed.
func testNextWaits(t *testing.T, f Fixture) {
	q := f.peer("1", "00.00.01")
	f.bind(t, q)
	c := consume(t, f.Broker, q.Queues[0])
	next := func(ctx context.Context) <-chan error {
		result := make(chan error, 1)
		go func() {
			ds, err := c.Next(ctx, 10)
			if err == nil && len(ds) != 1 {
				err = fmt.Errorf("got %d messages, want 1", len(ds))
			}
			result <- err
		}()
		return result
	}
	waiting := next(testContext(t))
	f.send(t, q, "a")
	if err := <-waiting; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	waiting = next(ctx)
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	waiting = next(testContext(t))
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-waiting; !errors.Is(err, broker.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	if err := c.Confirm(1); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("confirm: got %v, want ErrClosed", err)
	}
	if err := c.DeadLetter(testContext(t), 1, "reason"); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("dead-letter: got %v, want ErrClosed", err)
	}
}

// A queue that does not exist can not be consumed; other queues are not affected.
func testNoQueue(t *testing.T, f Fixture) {
	queue := f.queueWith(t, 1)
	c := consume(t, f.Broker, queue)
	if err := f.Broker.CheckInUse(testContext(t), "peer.nobody"+f.Suffix); err != nil {
		t.Errorf("a queue that does not exist is in use: %v", err)
	}
	if _, err := f.Broker.Consume(testContext(t), "peer.nobody"+f.Suffix); !errors.Is(err, broker.ErrNoQueue) {
		t.Errorf("consuming a queue that does not exist: got %v, want ErrNoQueue", err)
	}
	if got, _ := take(t, c, 1); got[0] != "1" {
		t.Errorf("got %q, want 1", got)
	}
}

// A queue has one consumer at a time, and can have the next one as soon as that is closed.
// An attempt to consume it meanwhile does not disturb the consumer.
func testInUse(t *testing.T, f Fixture) {
	queue := f.queueWith(t, 2)
	ctx := testContext(t)
	for _, want := range []string{"1", "2"} {
		if err := f.Broker.CheckInUse(ctx, queue); err != nil {
			t.Errorf("CheckInUse without a consumer: %v", err)
		}
		c := consume(t, f.Broker, queue)
		if err := f.Broker.CheckInUse(ctx, queue); !errors.Is(err, broker.ErrInUse) {
			t.Errorf("CheckInUse beside a consumer: got %v, want ErrInUse", err)
		}
		if second, err := f.Broker.Consume(ctx, queue); !errors.Is(err, broker.ErrInUse) {
			t.Errorf("second consumer: got %v, %v, want ErrInUse", second, err)
		}
		bodies, tags := take(t, c, 1)
		if bodies[0] != want {
			t.Errorf("got %q, want %q", bodies, want)
		}
		if err := c.Confirm(tags[0]); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// counter collects the confirmations of a publisher.
type counter struct {
	mu        sync.Mutex
	n         uint64     // the count last passed to confirmed
	violation error      // a violation of the contract
	want      uint64     // number of messages that will be confirmed, at most
	done      chan error // receives nil when want is reached, or the error of the stream
}

// publish opens a stream of which at most n messages will be confirmed.
func (f Fixture) publish(t testing.TB, n int) (broker.Publisher, *counter) {
	t.Helper()
	c := &counter{want: uint64(n), done: make(chan error, 1)}
	p, err := f.Broker.Publish(testContext(t), c.confirmed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.violation != nil {
			t.Error(c.violation)
		}
	})
	return p, c
}

func (c *counter) confirmed(n uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n < c.n || n > c.want || err == nil && n == c.n {
		c.violation = fmt.Errorf("%d messages are confirmed after %d, of %d", n, c.n, c.want)
	}
	reached := n == c.want && c.n < c.want
	c.n = n
	if err != nil || reached {
		select {
		case c.done <- err:
		default:
		}
	}
}

func (c *counter) count() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// wait waits until c.want messages are confirmed, or the stream has failed, and returns the
// stream's error.
func (c *counter) wait(t testing.TB) error {
	t.Helper()
	select {
	case err := <-c.done:
		return err
	case <-time.After(patience):
		return fmt.Errorf("%d of %d messages are confirmed", c.count(), c.want)
	}
}

func (f Fixture) incoming(body string) *broker.Incoming {
	return &broker.Incoming{
		Exchange:    "accounts_in" + f.Suffix,
		RoutingKey:  "0.0.1",
		Type:        "PrepareTransfer",
		ContentType: "application/json",
		Headers:     []broker.Header{{Name: "message-type", Value: "PrepareTransfer"}},
		Body:        []byte(body),
	}
}

// Every message is confirmed, by increasing counts, and is then in the inbox: in order,
// once, with all properties, including the types of headers.
func testPublish(t *testing.T, f Fixture) {
	const count = 1000
	p, c := f.publish(t, count)
	for _, body := range numbers(1, count) {
		m := f.incoming(body)
		m.Headers = []broker.Header{
			{Name: "message-type", Value: "PrepareTransfer"}, {Name: "debtor-id", Value: int64(-1 << 63)},
			{Name: "ca-creditors", Value: false}, {Name: "ca-trade", Value: true},
		}
		if err := p.Publish(testContext(t), m); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.wait(t); err != nil {
		t.Fatal(err)
	}
	for i, m := range f.Receive(t, count) {
		headers := make(map[string]any)
		for _, h := range m.Headers {
			headers[h.Name] = h.Value
		}
		if got, want := fmt.Sprintf("%s %s %s %s %#v", m.RoutingKey, m.Type, m.ContentType, m.Body, headers),
			fmt.Sprintf("0.0.1 PrepareTransfer application/json %d %#v", i+1, map[string]any{
				"message-type": "PrepareTransfer", "debtor-id": int64(-1 << 63), "ca-creditors": false, "ca-trade": true,
			}); got != want {
			t.Fatalf("received %s\nwant     %s", got, want)
		}
	}
}

// An unroutable message ends the stream: earlier messages are confirmed, later ones are
// not.
func testUnroutable(t *testing.T, f Fixture) {
	if f.NoInbox == "" {
		return // every inbox accepts messages
	}
	p, c := f.publish(t, 20)
	var publishErr error
	for i, body := range numbers(1, 30) {
		m := f.incoming(body)
		if i >= 20 {
			m.Exchange = f.NoInbox
		}
		if publishErr = p.Publish(testContext(t), m); publishErr != nil {
			break
		}
	}
	if publishErr != nil && !errors.Is(publishErr, broker.ErrUnroutable) {
		t.Errorf("publish: got %v, want ErrUnroutable", publishErr)
	}
	deadline := time.After(patience)
	for {
		var err error
		select {
		case err = <-c.done:
		case <-deadline:
			t.Fatal("the stream does not fail")
		}
		if err == nil {
			continue // the first 20 are confirmed; the error follows
		}
		if !errors.Is(err, broker.ErrUnroutable) {
			t.Errorf("got %v, want ErrUnroutable", err)
		}
		break
	}
	if n := c.count(); n != 20 {
		t.Errorf("%d messages are confirmed, want 20", n)
	}
	if err := p.Publish(testContext(t), f.incoming("31")); !errors.Is(err, broker.ErrUnroutable) {
		t.Errorf("publish after the end: got %v, want ErrUnroutable", err)
	}
	for i, m := range f.Receive(t, 20) {
		if string(m.Body) != fmt.Sprint(i+1) {
			t.Errorf("message %d is %s", i+1, m.Body)
		}
	}
}

// A message that can never be stored is refused immediately. It is not counted, and the
// stream continues.
func testInvalid(t *testing.T, f Fixture) {
	p, c := f.publish(t, 1)
	for _, spoil := range []func(*broker.Incoming){
		func(m *broker.Incoming) { m.Exchange = "" },
		func(m *broker.Incoming) { m.RoutingKey = string(make([]byte, 256)) },
		func(m *broker.Incoming) { m.Type = string(make([]byte, 256)) },
		func(m *broker.Incoming) { m.ContentType = string(make([]byte, 256)) },
		func(m *broker.Incoming) { m.Headers[0].Name = "" },
		func(m *broker.Incoming) { m.Headers[0].Value = 1.5 },
		func(m *broker.Incoming) { m.Headers[0].Value = string(make([]byte, 1<<20)) },
	} {
		m := f.incoming("bad")
		spoil(m)
		if err := p.Publish(testContext(t), m); err == nil {
			t.Errorf("%.300v was accepted", m)
		}
	}
	if err := p.Publish(testContext(t), f.incoming("good")); err != nil {
		t.Fatal(err)
	}
	if err := c.wait(t); err != nil {
		t.Fatal(err)
	}
	if got := f.Receive(t, 1); string(got[0].Body) != "good" {
		t.Errorf("received %s", got[0].Body)
	}
}

// A closed publisher accepts no messages, and others continue.
func testPublisherClosed(t *testing.T, f Fixture) {
	p, c := f.publish(t, 1)
	other, otherC := f.publish(t, 2)
	if err := p.Publish(testContext(t), f.incoming("1")); err != nil {
		t.Fatal(err)
	}
	if err := c.wait(t); err != nil {
		t.Fatal(err)
	}
	if err := other.Publish(testContext(t), f.incoming("2")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := p.Publish(testContext(t), f.incoming("x")); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	if err := other.Publish(testContext(t), f.incoming("3")); err != nil {
		t.Error(err)
	}
	if err := otherC.wait(t); err != nil {
		t.Error(err)
	}
	for i, m := range f.Receive(t, 3) {
		if string(m.Body) != fmt.Sprint(i+1) {
			t.Errorf("message %d is %s", i+1, m.Body)
		}
	}
}

// publishUntilBlocked publishes until Publish blocks, and returns how many messages were
// accepted.
func (f Fixture) publishUntilBlocked(t testing.TB, p broker.Publisher) int {
	t.Helper()
	for n := range 100_000 {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		err := p.Publish(ctx, f.incoming(fmt.Sprint(n+1)))
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("messages are accepted without a bound")
	return 0
}

// A broker that cannot store messages accepts a bounded number of them, and confirms
// none. When it can store messages again, all accepted messages are confirmed.
func testStalled(t *testing.T, f Fixture) {
	if f.Stall == nil {
		return
	}
	const most = 100_000
	p, c := f.publish(t, most)
	resume := f.Stall(t)
	n := f.publishUntilBlocked(t, p)
	if got := c.count(); got != 0 {
		t.Errorf("%d messages are confirmed, although no messages can be stored", got)
	}
	resume()
	got := f.Receive(t, n)
	for i, m := range got {
		if string(m.Body) != fmt.Sprint(i+1) {
			t.Fatalf("message %d is %s", i+1, m.Body)
		}
	}
	for deadline := time.Now().Add(patience); c.count() < uint64(n); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d messages are confirmed", c.count(), n)
		}
	}
}

// Closing a broker that can not store messages ends all blocked calls.
func testClosedWhileStalled(t *testing.T, f Fixture) {
	if f.Stall == nil {
		return
	}
	queue := f.queueWith(t, 0)
	c := consume(t, f.Broker, queue)
	p, _ := f.publish(t, 100_000)
	resume := f.Stall(t)
	defer resume()
	f.publishUntilBlocked(t, p)
	waiting := make(chan error, 2)
	go func() { waiting <- p.Publish(testContext(t), f.incoming("x")) }()
	go func() {
		_, err := c.Next(testContext(t), 1)
		waiting <- err
	}()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_ = f.Broker.Close() // may report messages that were not stored
	}()
	for range 2 {
		if err := <-waiting; !errors.Is(err, broker.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	}
	select {
	case <-closed:
	case <-time.After(patience):
		t.Error("Close does not return")
	}
}

// Closing the broker makes published messages durable, ends all blocked calls, and makes
// all later calls fail, except Close.
func testClosed(t *testing.T, f Fixture) {
	queue := f.queueWith(t, 1)
	c := consume(t, f.Broker, queue)
	take(t, c, 1)
	const count = 50
	p, counter := f.publish(t, count)
	for _, body := range numbers(1, count) {
		if err := p.Publish(testContext(t), f.incoming(body)); err != nil {
			t.Fatal(err)
		}
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := c.Next(testContext(t), 1)
		waiting <- err
	}()
	for range 2 {
		if err := f.Broker.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-waiting; !errors.Is(err, broker.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	if err := counter.wait(t); err != nil || counter.count() != count {
		t.Errorf("%d of %d messages are confirmed, %v", counter.count(), count, err)
	}
	ctx := testContext(t)
	_, consumeErr := f.Broker.Consume(ctx, queue)
	_, publishErr := f.Broker.Publish(ctx, func(uint64, error) {})
	for what, err := range map[string]error{
		"Bind": f.Broker.Bind(ctx, f.peer("2", "00.00.02")), "Unbind": f.Broker.Unbind(ctx, f.peer("1", "00.00.01")),
		"Consume": consumeErr, "Publish": publishErr,
		"Publisher.Publish": p.Publish(ctx, f.incoming("x")), "Consumer.Confirm": c.Confirm(1),
	} {
		if !errors.Is(err, broker.ErrClosed) {
			t.Errorf("%s: got %v, want ErrClosed", what, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	b := f.Reopen(t)
	if got, _ := take(t, consumeAgain(t, b, queue), 1); got[0] != "1" {
		t.Errorf("got %q, want 1", got)
	}
	f.Receive(t, count)
}

// Several publishers, applications and consumers work concurrently: every message arrives,
// once, and in the order of its sender.
func testConcurrent(t *testing.T, f Fixture) {
	const writers, count = 3, 300
	one, two := f.peer("1", "00.00.01"), f.peer("2", "00.00.02")
	peers := []broker.PeerBinding{one, two}
	for _, q := range peers {
		f.bind(t, q)
	}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			p, c := f.publish(t, count)
			for n := range count {
				if err := p.Publish(testContext(t), f.incoming(fmt.Sprintf("%d:%d", w, n))); err != nil {
					t.Error(err)
					return
				}
			}
			if err := c.wait(t); err != nil {
				t.Error(err)
			}
		})
	}
	for _, q := range peers {
		wg.Go(func() {
			for n := 0; n < count; n += 100 {
				if err := f.Send(t, q.Exchange, q.BindingKey[:8]+".07", outgoing(numbers(n+1, n+100)...)...); err != nil {
					t.Error(err)
					return
				}
			}
		})
		wg.Go(func() {
			c, err := f.Broker.Consume(testContext(t), q.Queues[0])
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for n := 0; n < count; {
				ds, err := c.Next(testContext(t), 50)
				if err != nil {
					t.Error(err)
					return
				}
				for _, d := range ds {
					if n++; string(d.Body) != fmt.Sprint(n) {
						t.Errorf("queue %s: message %d is %s", q.Queues[0], n, d.Body)
						return
					}
				}
				if err := c.Confirm(ds[len(ds)-1].Tag); err != nil {
					t.Error(err)
				}
			}
		})
	}
	next := make([]int, writers)
	for _, m := range f.Receive(t, writers*count) {
		var w, n int
		if _, err := fmt.Sscanf(string(m.Body), "%d:%d", &w, &n); err != nil || n != next[w] {
			t.Fatalf("received %s, want number %d, %v", m.Body, next[w], err)
		}
		next[w]++
	}
	wg.Wait()
	for _, q := range peers {
		wantQueued(t, f, f.Broker, q)
	}
}
