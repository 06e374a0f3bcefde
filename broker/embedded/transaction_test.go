package embedded

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	"peerlink/broker"
)

// commitTransaction does a transaction and waits for its result.
func commitTransaction(ctx context.Context, s *Store, x Transaction) ([]Outcome, error) {
	type result struct {
		outcomes []Outcome
		err      error
	}
	done := make(chan result, 1)
	if err := s.Commit(ctx, x, func(o []Outcome, err error) { done <- result{o, err} }); err != nil {
		return nil, err
	}
	r := <-done
	return r.outcomes, r.err
}

func sendings(bodies ...string) (list []Sending) {
	for _, m := range outgoing(bodies...) {
		list = append(list, Sending{Exchange: "to_debtors", RoutingKey: "q.1", Outgoing: m, Unroutable: func(*broker.Outgoing) *broker.Incoming { return nil }})
	}
	return list
}

// A transaction stores all its messages, in order, and removes those that it acknowledges; others
// stay.
func TestTransaction(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	publishBodies(t, s, "inbox", "a", "b", "c")
	sub := subscribe(t, s, "inbox")
	_, seqs := take(t, sub, 3)
	messages := sendings("1", "2", "3")
	messages[1].RoutingKey = "elsewhere"
	messages[2].Invalid = "wrong"
	outcomes, err := commitTransaction(testContext(t), s, Transaction{messages, []Ack{{sub, seqs[:1]}, {sub, seqs[2:]}}})
	if err != nil || !slices.Equal(outcomes, []Outcome{Queued, SetAside, SetAside}) {
		t.Fatalf("outcomes %v, %v", outcomes, err)
	}
	wantQueued(t, s, "q", "1")
	wantQueued(t, s, "inbox", "b")
	if got := slices.Concat(asideBodies(t, s, "q"), asideBodies(t, s, UnroutableQueue("to_debtors"))); !slices.Equal(got, []string{"3", "2"}) {
		t.Errorf("the dead letters are %q", got)
	}
}

// A transaction that fails does nothing, whatever the reason: the messages that it acknowledges are
// delivered again.
func TestTransactionFails(t *testing.T) {
	t.Parallel()
	var free atomic.Int64
	free.Store(1 << 50)
	s := openTest(t, Options{MinFree: 1 << 20, freeBytes: func(string) (int64, error) { return free.Load(), nil }})
	declareTest(t, s, "q")
	publishBodies(t, s, "inbox", "a", "b")
	sub, other := subscribe(t, s, "inbox"), subscribe(t, s, "inbox")
	for _, c := range []struct {
		name string
		fail func(x *Transaction) (undo func())
		want error
	}{
		{"message without a peer", func(x *Transaction) func() {
			x.Messages[1].RoutingKey, x.Messages[1].Unroutable = "elsewhere", nil
			return nil
		}, broker.ErrUnroutable},
		{"message that is too large", func(x *Transaction) func() {
			x.Messages[1].Body = make([]byte, 2<<20)
			return nil
		}, errInvalid},
		{"message of another subscription", func(x *Transaction) func() {
			x.Acks = append(x.Acks, Ack{other, []uint64{x.Acks[0].Seqs[0]}})
			return nil
		}, errNotDelivered},
		{"message that does not exist", func(x *Transaction) func() {
			x.Acks = append(x.Acks, Ack{sub, []uint64{77}})
			return nil
		}, errNotDelivered},
		{"full disk", func(*Transaction) func() {
			free.Store(0)
			return func() { free.Store(1 << 50) }
		}, ErrFull},
	} {
		_, seqs := take(t, sub, 2)
		x := Transaction{sendings("1", "2"), []Ack{{sub, seqs}}}
		undo := c.fail(&x)
		if _, err := commitTransaction(testContext(t), s, x); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if undo != nil {
			undo()
		}
		wantQueued(t, s, "q")
		wantQueued(t, s, "inbox", "a", "b")
		// What a failed transaction did not requeue is still delivered.
		_ = sub.Nack(seqs)
	}
	// It can be done after all, once the store has found that there is space.
	for err := ErrFull; err != nil; {
		_, seqs := take(t, sub, 2)
		if _, err = commitTransaction(testContext(t), s, Transaction{sendings("1"), []Ack{{sub, seqs}}}); err != nil && !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	}
	wantQueued(t, s, "q", "1")
	wantQueued(t, s, "inbox")
}

// What a transaction acknowledges is not delivered to others while the transaction is not durable
// yet, even if its subscription is closed.
func TestTransactionOfClosedSubscription(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	publishBodies(t, s, "inbox", "a", "b")
	sub := subscribe(t, s, "inbox")
	_, seqs := take(t, sub, 2)
	unlock := lockFile(t, s)
	done := make(chan error, 1)
	if err := s.Commit(testContext(t), Transaction{sendings("1"), []Ack{{sub, seqs[:1]}}}, func(_ []Outcome, err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- sub.Close() }()
	next := subscribe(t, s, "inbox")
	if bodies, _ := take(t, next, 1); bodies[0] != "b!" {
		t.Errorf("%q is delivered, want b, again", bodies)
	}
	unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	wantQueued(t, s, "inbox", "b")
}

// moveInChild moves messages from the inbox to queue q, in transactions of up to 20, and prints
// how many are confirmed so far. At the end it waits to be killed.
func moveInChild(s *Store) error {
	ctx := context.Background()
	sub := s.Subscribe("inbox")
	for moved := 0; ; {
		messages, err := sub.Next(ctx, 1+rand.IntN(20))
		if err != nil {
			return err
		}
		x := Transaction{Acks: []Ack{{Subscription: sub}}}
		for _, m := range messages {
			x.Messages = append(x.Messages, sendings(string(m.Body))...)
			x.Acks[0].Seqs = append(x.Acks[0].Seqs, m.Seq)
		}
		if _, err := commitTransaction(ctx, s, x); err != nil {
			return err
		}
		moved += len(messages)
		printLine(moved)
	}
}

// When a process is killed in a transaction, at any time, either all of the transaction is done or
// nothing: each message is in one of the two queues, and what was confirmed is done.
func TestKillTransaction(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "messages.db")
	const kills, total = 5, 5000
	s := openFile(t, path, Options{})
	declareTest(t, s, "q")
	publishBodies(t, s, "inbox", numbers(total)...)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := 0
	for range kills {
		c := startChild(t, "move", path)
		confirmed, err := strconv.Atoi(killAfter(t, c, 1+rand.IntN(20)))
		if err != nil {
			t.Fatal(err)
		}
		s := openFile(t, path, Options{})
		moved := queued(t, s, "q")
		if len(moved) < before+confirmed {
			t.Errorf("%d messages were moved, %d before, and %d confirmed", len(moved), before, confirmed)
		}
		before = len(moved)
		if all := slices.Concat(moved, queued(t, s, "inbox")); !slices.Equal(all, numbers(total)) {
			t.Fatalf("after %d, the queues have %d messages, some of them twice or missing", len(moved), len(all))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
