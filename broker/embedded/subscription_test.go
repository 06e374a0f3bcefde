package embedded

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"testing"

	"peerlink/broker"
)

func subscribe(t *testing.T, s *Store, inbox string) *Subscription {
	sub := s.Subscribe(inbox)
	t.Cleanup(func() { sub.Close() })
	return sub
}

// take consumes exactly n messages, and returns them as "body", or "body!" if redelivered.
func take(t *testing.T, sub *Subscription, n int) (bodies []string, seqs []uint64) {
	t.Helper()
	for len(bodies) < n {
		ms, err := sub.Next(testContext(t), n-len(bodies))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms {
			body := string(m.Body)
			if m.Redelivered {
				body += "!"
			}
			bodies = append(bodies, body)
			seqs = append(seqs, m.Seq)
		}
	}
	return bodies, seqs
}

func ack(t *testing.T, sub *Subscription, seqs ...uint64) {
	t.Helper()
	done := make(chan error, 2)
	if err := sub.Ack(seqs, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A received message is delivered to the application with all its properties.
func TestPublishSubscribe(t *testing.T) {
	s := openTest(t, Options{})
	want := *benchMessage()
	sub := subscribe(t, s, want.Exchange) // before the inbox exists
	publishN(t, s, 1)
	got, err := sub.Next(testContext(t), 10)
	if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], InboxMessage{Seq: 1, ID: messageID(s.writer.db.epoch, 1), Incoming: want}) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

// Each message is delivered to one subscription at a time. Acknowledged ones are removed,
// individually and in any order; the others are delivered again, marked as redelivered, to
// any subscription: after Nack, after Close, and after a restart.
func TestSubscription(t *testing.T) {
	s := openTest(t, Options{})
	publishBodies(t, s, "accounts_in", numbers(10)...)
	a, b := subscribe(t, s, "accounts_in"), subscribe(t, s, "accounts_in")
	gotA, seqsA := take(t, a, 4)
	gotB, seqsB := take(t, b, 4)
	if !slices.Equal(gotA, numbers(8)[:4]) || !slices.Equal(gotB, numbers(8)[4:]) {
		t.Fatalf("got %q and %q", gotA, gotB)
	}
	ack(t, a, seqsA[3], seqsA[1])
	ack(t, b, seqsB[0])
	wantQueued(t, s, "accounts_in", "1", "3", "6", "7", "8", "9", "10")

	// A message can be acknowledged or returned only by its subscription.
	for name, err := range map[string]error{
		"ack twice":         a.Ack([]uint64{seqsA[1]}, func(error) { t.Error("done was called") }),
		"ack another's":     a.Ack([]uint64{seqsA[0], seqsB[1]}, func(error) { t.Error("done was called") }),
		"ack to come":       a.Ack([]uint64{10}, nil),
		"ack 0":             a.Ack([]uint64{0}, nil),
		"requeue another's": b.Nack([]uint64{seqsA[0]}),
	} {
		if !errors.Is(err, errNotDelivered) {
			t.Errorf("%s: got %v, want errNotDelivered", name, err)
		}
	}

	if err := a.Nack([]uint64{seqsA[2], seqsA[0]}); err != nil {
		t.Fatal(err)
	}
	got, seqs := take(t, b, 3)
	if want := []string{"1!", "3!", "9"}; !slices.Equal(got, want) {
		t.Errorf("after nack: got %q, want %q", got, want)
	}
	ack(t, b, seqs[0])
	b.Close() // with 6, 7, 8, 3, 9
	got, _ = take(t, a, 6)
	if want := []string{"3!", "6!", "7!", "8!", "9!", "10"}; !slices.Equal(got, want) {
		t.Errorf("after close: got %q, want %q", got, want)
	}

	s = reopen(t, s)
	publishBodies(t, s, "accounts_in", "11")
	c := subscribe(t, s, "accounts_in")
	got, seqs = take(t, c, 7)
	if want := []string{"3!", "6!", "7!", "8!", "9!", "10!", "11"}; !slices.Equal(got, want) {
		t.Errorf("after restart: got %q, want %q", got, want)
	}
	ack(t, c, append(seqs, seqs...)...) // duplicates are allowed
	wantQueued(t, s, "accounts_in")
}

// An acknowledged message is not delivered again, even while its removal can not be
// written; done is not called before.
func TestAckHolds(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{})
	publishBodies(t, s, "accounts_in", "1", "2")
	a := subscribe(t, s, "accounts_in")
	_, seqs := take(t, a, 2)
	unlock := lockFile(t, s)
	done := make(chan error, 1)
	if err := a.Ack(seqs[:1], func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if got, _ := take(t, subscribe(t, s, "accounts_in"), 1); got[0] != "2!" {
		t.Errorf("got %s, want 2!", got[0])
	}
	select {
	case err := <-done:
		t.Errorf("done was called with %v while the file was locked", err)
	default:
	}
	unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
	wantQueued(t, s, "accounts_in", "2")
}

// With any number of subscriptions that consume, acknowledge, return, close and open
// concurrently, each message is acknowledged once.
func TestSubscriptionsCompete(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{})
	const total = 3000
	var mu sync.Mutex
	acked := make(map[string]int)
	var left sync.WaitGroup
	left.Add(total)
	var workers sync.WaitGroup
	var subs []*Subscription
	for i := range 4 {
		sub := subscribe(t, s, "accounts_in")
		subs = append(subs, sub)
		workers.Go(func() {
			for round := 0; ; round++ {
				ms, err := sub.Next(testContext(t), 7+i)
				if errors.Is(err, broker.ErrClosed) {
					return
				} else if err != nil {
					t.Error(err)
					return
				}
				var keep, back []uint64
				for _, m := range ms {
					n, _ := strconv.Atoi(string(m.Body))
					if !m.Redelivered && n%3 == 0 {
						back = append(back, m.Seq)
					} else {
						keep = append(keep, m.Seq)
						mu.Lock()
						acked[string(m.Body)]++
						mu.Unlock()
					}
				}
				if err := sub.Nack(back); err != nil {
					t.Error(err)
				}
				if err := sub.Ack(keep, func(error) { left.Add(-len(keep)) }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	publishBodies(t, s, "accounts_in", numbers(total)...)
	left.Wait()
	for _, sub := range subs {
		sub.Close()
	}
	workers.Wait()
	if len(acked) != total {
		t.Errorf("%d messages acknowledged, want %d", len(acked), total)
	}
	for body, n := range acked {
		if n != 1 {
			t.Errorf("message %s was acknowledged %d times", body, n)
		}
	}
	wantQueued(t, s, "accounts_in")
}

// A subscription gets no more messages than requested: the others are available to other
// subscriptions.
func TestSubscriptionTakesMax(t *testing.T) {
	s := openTest(t, Options{})
	publishBodies(t, s, "accounts_in", numbers(5)...)
	a, b := subscribe(t, s, "accounts_in"), subscribe(t, s, "accounts_in")
	for i, sub := range []*Subscription{a, b, a} {
		ms, err := sub.Next(testContext(t), 1)
		if err != nil || len(ms) != 1 || string(ms[0].Body) != fmt.Sprint(i+1) {
			t.Errorf("got %v, %v, want message %d", ms, err, i+1)
		}
	}
	if _, err := a.Next(testContext(t), 0); !errors.Is(err, errInvalid) {
		t.Errorf("Next(0): got %v, want ErrInvalid", err)
	}
}

// Inboxes that were subscribed to and never used leave no state.
func TestSubscribeLeavesNothing(t *testing.T) {
	s := openTest(t, Options{})
	for i := range 10 {
		s.Subscribe(fmt.Sprint("inbox", i)).Close()
		s.Watch(fmt.Sprint("inbox", i)).Close()
	}
	if len(s.inboxes) > 0 || len(s.notifier.byQueue) > 0 {
		t.Errorf("%d inboxes and %d entries of the notifier are left", len(s.inboxes), len(s.notifier.byQueue))
	}
}
