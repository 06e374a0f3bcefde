package embedded

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"peerlink/broker"
)

func consume(t *testing.T, s *Store, queue string) broker.Consumer {
	t.Helper()
	c, err := s.Consume(testContext(t), queue)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// next consumes n messages.
func next(t *testing.T, c broker.Consumer, n int) (bodies []string, tags []uint64) {
	t.Helper()
	for len(bodies) < n {
		ds, err := c.Next(testContext(t), n-len(bodies))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range ds {
			bodies = append(bodies, string(d.Body))
			tags = append(tags, d.Tag)
		}
	}
	return bodies, tags
}

// Messages are delivered in the order in which they were stored, unchanged, each once;
// confirmed ones are removed, the others are delivered again.
func TestConsume(t *testing.T) {
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	m := broker.Outgoing{Type: "ConfigureAccount", ContentType: "application/json", Body: []byte("\x00 \xff")}
	if err := s.PutAll(testContext(t), "q", []broker.Outgoing{m, {}}); err != nil {
		t.Fatal(err)
	}
	putBodies(t, s, "q", numbers(100)...)
	c := consume(t, s, "q")
	ds, err := c.Next(testContext(t), 2)
	if err != nil || len(ds) != 2 {
		t.Fatal(ds, err)
	}
	if d := ds[0]; d.Type != m.Type || d.ContentType != m.ContentType || string(d.Body) != string(m.Body) {
		t.Errorf("got %+v, want %+v", d, m)
	}
	if d := ds[1]; d.Type != "" || d.ContentType != "" || len(d.Body) != 0 {
		t.Errorf("got %+v, want an empty message", d)
	}
	got, tags := next(t, c, 100)
	if !slices.Equal(got, numbers(100)) || !slices.IsSorted(tags) {
		t.Errorf("got %q with tags %d", got, tags)
	}
	if err := c.Confirm(tags[59]); err != nil {
		t.Fatal(err)
	}
	if err := c.Confirm(tags[19]); err != nil { // late, but no error
		t.Fatal(err)
	}
	for _, tag := range []uint64{tags[99] + 1, math.MaxUint64} {
		if err := c.Confirm(tag); !errors.Is(err, errNotDelivered) {
			t.Errorf("confirm %d: got %v, want errNotDelivered", tag, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	wantQueued(t, s, "q", numbers(100)[60:]...)
	got, _ = next(t, consume(t, s, "q"), 40)
	if !slices.Equal(got, numbers(100)[60:]) {
		t.Errorf("the next consumer got %q, want 61 to 100", got)
	}
	wantQueued(t, reopen(t, s), "q", numbers(100)[60:]...)
}

// Sequence numbers are not reused after the queue was empty: a tag never denotes two
// messages, even after a restart.
func TestTagsGrow(t *testing.T) {
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	var all []uint64
	for range 3 {
		putBodies(t, s, "q", "1", "2")
		c := consume(t, s, "q")
		_, tags := next(t, c, 2)
		all = append(all, tags...)
		if err := c.Confirm(tags[1]); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		wantQueued(t, s, "q")
		s = reopen(t, s)
	}
	if want := []uint64{1, 2, 3, 4, 5, 6}; !slices.Equal(all, want) {
		t.Errorf("tags %d, want %d", all, want)
	}
}

// A confirmed message is not delivered to the next consumer, even while its removal can
// not be written.
func TestConfirmHolds(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	putBodies(t, s, "q", "1", "2", "3")
	c := consume(t, s, "q")
	_, tags := next(t, c, 3)
	unlock := lockFile(t, s)
	if err := c.Confirm(tags[1]); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if n := len(queued(t, s, "q")); n != 3 {
		t.Fatalf("%d messages are left; the lock does not work", n)
	}
	if got, _ := next(t, consume(t, s, "q"), 1); got[0] != "3" {
		t.Errorf("the next consumer got %s first, want 3", got[0])
	}
	unlock()
	wantQueued(t, reopen(t, s), "q", "3")
}

// Confirming messages that are confirmed already writes nothing.
func TestConfirmAgain(t *testing.T) {
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	putBodies(t, s, "q", "1", "2", "3")
	c := consume(t, s, "q")
	_, tags := next(t, c, 2)
	if err := c.Confirm(tags[1]); err != nil {
		t.Fatal(err)
	}
	putBodies(t, s, "q", "4") // stored after the confirmation, or in the same transaction
	o := c.(*consumer).peerQueue
	written := o.pending
	for _, tag := range tags {
		if err := c.Confirm(tag); err != nil {
			t.Errorf("confirming %d again: %v", tag, err)
		}
		if o.pending != written {
			t.Errorf("confirming %d again was submitted for writing", tag)
		}
	}
	wantQueued(t, s, "q", "3", "4")
}

// Next returns when a message arrives, when its context ends, and when its consumer is
// closed.
func TestNextWaits(t *testing.T) {
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	c := consume(t, s, "q")
	type result struct {
		ds  []broker.Delivery
		err error
	}
	start := func(ctx context.Context) <-chan result {
		got := make(chan result, 1)
		go func() {
			ds, err := c.Next(ctx, 10)
			got <- result{ds, err}
		}()
		return got
	}
	got := start(testContext(t))
	putBodies(t, s, "q", "1")
	if r := <-got; r.err != nil || len(r.ds) != 1 {
		t.Errorf("got %v, %v, want one message", r.ds, r.err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	got = start(ctx)
	cancel()
	if r := <-got; !errors.Is(r.err, context.Canceled) {
		t.Errorf("got %v, %v, want context.Canceled", r.ds, r.err)
	}
	got = start(testContext(t))
	c.Close()
	if r := <-got; !errors.Is(r.err, broker.ErrClosed) {
		t.Errorf("got %v, %v, want ErrClosed", r.ds, r.err)
	}
	if err := c.Confirm(1); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("confirm: got %v, want ErrClosed", err)
	}
}

// The size of the messages that Next returns is bounded, but it returns at least one.
func TestNextBounded(t *testing.T) {
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	large := strings.Repeat("x", 400_000)
	putBodies(t, s, "q", large, large, large, large, strings.Repeat("x", 1<<20), "last")
	// A message that reaches the bound exactly is the last of its read too.
	if err := s.PutAll(testContext(t), "q", []broker.Outgoing{{Body: make([]byte, readBytes-rowOverhead)}, {}}); err != nil {
		t.Fatal(err)
	}
	c := consume(t, s, "q")
	for _, tt := range []struct{ limit, want int }{{1000, 3}, {1000, 2}, {1, 1}, {1000, 1}, {1000, 1}} {
		ds, err := c.Next(testContext(t), tt.limit)
		if err != nil || len(ds) != tt.want {
			t.Errorf("got %d messages, %v, want %d", len(ds), err, tt.want)
		}
	}
	if _, err := c.Next(testContext(t), 0); !errors.Is(err, errInvalid) {
		t.Errorf("Next(0): got %v, want ErrInvalid", err)
	}
}

// A queue has one consumer or subscription at a time, and must exist.
func TestConsumeExclusive(t *testing.T) {
	s := openTest(t, Options{})
	ctx := testContext(t)
	if _, err := s.Consume(ctx, "q"); !errors.Is(err, broker.ErrNoQueue) {
		t.Errorf("unknown queue: got %v, want ErrNoQueue", err)
	}
	declareTest(t, s, "q")
	c := consume(t, s, "q")
	if _, err := s.Consume(ctx, "q"); !errors.Is(err, broker.ErrInUse) {
		t.Errorf("second consumer: got %v, want ErrInUse", err)
	}
	refused := s.Subscribe("q")
	if _, err := refused.Next(ctx, 1); !errors.Is(err, broker.ErrInUse) {
		t.Errorf("subscription beside a consumer: got %v, want ErrInUse", err)
	}
	refused.Close()
	c.Close()
	sub := s.Subscribe("q")
	if _, err := s.Consume(ctx, "q"); !errors.Is(err, broker.ErrInUse) {
		t.Errorf("consumer beside a subscription: got %v, want ErrInUse", err)
	}
	sub.Close()
	consume(t, s, "q")
}

// A dead letter leaves the queue, with its reason and all properties, while the messages
// before and after it stay; a later confirmation does not remove it, even in the same
// transaction.
func TestSetAside(t *testing.T) {
	ctx := testContext(t)
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	putBodies(t, s, "q", numbers(6)...)
	c := consume(t, s, "q")
	_, tags := next(t, c, 5)

	unlock := lockFile(t, s)
	if err := c.Confirm(tags[0]); err != nil {
		t.Fatal(err)
	}
	waitTaken(t, s) // the writer waits for the lock; later operations form the next batch
	if err := c.Confirm(tags[1]); err != nil {
		t.Fatal(err)
	}
	settled, err := c.(*consumer).startDeadLetter(tags[2], "debtor_id is out of range")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Confirm(tags[3]); err != nil {
		t.Fatal(err)
	}
	unlock()
	if err := await(ctx, settled); err != nil {
		t.Fatal(err)
	}

	for _, tag := range []uint64{tags[2], tags[3], tags[4] + 1, 0} {
		if err := c.DeadLetter(ctx, tag, "again"); !errors.Is(err, errNotDelivered) {
			t.Errorf("dead-letter %d: got %v, want errNotDelivered", tag, err)
		}
	}
	if err := c.DeadLetter(ctx, tags[4], "\xff\x00"+strings.Repeat("x", 10_000)); err != nil {
		t.Error(err)
	}
	wantQueued(t, s, "q", "6")
	var aside []broker.DeadLetter
	for m, err := range s.List(ctx, "q") {
		if err != nil {
			t.Fatal(err)
		}
		aside = append(aside, m)
	}
	if len(aside) != 2 {
		t.Fatal(aside)
	}
	if a := aside[0]; a.ID != strconv.FormatUint(tags[2], 10) || string(a.Body) != "3" || a.Type != "PrepareTransfer" || a.Reason != "debtor_id is out of range" || time.Since(a.At).Abs() > time.Minute {
		t.Errorf("the dead letter is %+v", a)
	}
	if r := aside[1].Reason; len(r) > maxReason+10 || !strings.HasPrefix(r, "\uFFFD\uFFFDxxx") {
		t.Errorf("reason %.20q... of %d bytes", r, len(r))
	}
	if n := statsOf(t, s, "q").SetAside; n != 2 {
		t.Errorf("%d dead letters, want 2", n)
	}
}

// Stats and Peek return the content of the queues, and change nothing.
func TestStatsAndPeek(t *testing.T) {
	ctx := testContext(t)
	s := openTest(t, Options{})
	before := time.Now().Truncate(time.Millisecond)
	declareTest(t, s, "q")
	publishBodies(t, s, "accounts_in", numbers(5)...)
	stats, err := s.Stats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%+v", stats.Queues)
	in := stats.Queues[0]
	if want := fmt.Sprintf("[{Name:accounts_in Depth:5 Oldest:%s SetAside:0 Total:5} {Name:q Depth:0 Oldest:%s SetAside:0 Total:0}]", in.Oldest, time.Time{}); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if in.Oldest.Before(before) || in.Oldest.After(time.Now()) || stats.FileBytes == 0 || stats.Problem != nil {
		t.Errorf("%+v", stats)
	}
	ms, err := s.Peek(ctx, "accounts_in", 3)
	if err != nil || len(ms) != 3 || string(ms[2].Body) != "3" || ms[2].Seq != 3 || ms[2].RoutingKey != "1.0.1" || ms[2].Type != "AccountUpdate" {
		t.Errorf("peek: %+v, %v", ms, err)
	}
	if ms, err := s.Peek(ctx, "nobody", 3); err != nil || len(ms) != 0 {
		t.Errorf("Peek of a queue that does not exist: %+v, %v", ms, err)
	}
	wantQueued(t, s, "accounts_in", numbers(5)...)
	if names, err := s.Queues(ctx); err != nil || !slices.Equal(names, []string{"accounts_in", "q"}) {
		t.Errorf("queues %q, %v", names, err)
	}
}
