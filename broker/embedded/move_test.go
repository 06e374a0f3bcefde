package embedded

import (
	"context"
	"errors"
	"slices"
	"testing"

	"peerlink/broker"
)

// Moving passes the messages on in their order, with all that is known of them, and removes only those that
// are stored elsewhere. What is moved of a peer's messages is free again in its quota.
func TestMove(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{})
	publishFrom(t, s, "a", 5, 100)
	publishBodies(t, s, "accounts_in", "of nobody")
	failure := errors.New("not stored")
	var seen []string
	store := func(fail bool) func(context.Context, []Message) error {
		return func(_ context.Context, messages []Message) error {
			if len(messages) > 2 {
				t.Errorf("%d messages at once, want at most 2", len(messages))
			}
			if fail && len(seen) == 2 {
				return failure
			}
			for _, m := range messages {
				seen = append(seen, m.Type)
				if in := m.Incoming("accounts_in"); in.Exchange != "accounts_in" || in.RoutingKey == "" || m.Peer == "a" && len(in.Headers) != 1 {
					t.Errorf("message %+v", in)
				}
			}
			return nil
		}
	}
	if n, err := s.Move(testContext(t), "accounts_in", 2, store(true)); n != 2 || !errors.Is(err, failure) {
		t.Errorf("%d messages were moved, %v", n, err)
	}
	if left := queued(t, s, "accounts_in"); len(left) != 4 {
		t.Errorf("%d messages are left, want 4", len(left))
	}
	sub := subscribe(t, s, "accounts_in")
	if _, err := s.Move(testContext(t), "accounts_in", 2, store(false)); !errors.Is(err, broker.ErrInUse) {
		t.Errorf("with a subscription: got error %v, want %v", err, broker.ErrInUse)
	}
	if err := sub.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Move(testContext(t), "accounts_in", 2, store(false)); n != 4 || err != nil || len(seen) != 6 {
		t.Errorf("%d messages were moved, %v", n, err)
	}
	wantQueued(t, s, "accounts_in")
	checkUsage(t, s, "a")
}

// Dead letters are moved in the same way.
func TestMoveDeadLetters(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	putBodies(t, s, "q", numbers(5)...)
	c := consume(t, s, "q")
	_, tags := next(t, c, 5)
	for _, tag := range tags[:4] {
		if err := c.DeadLetter(testContext(t), tag, "a reason"); err != nil {
			t.Fatal(err)
		}
	}
	failure := errors.New("not stored")
	var seen []string
	fail := true
	store := func(_ context.Context, messages []broker.DeadLetter) error {
		if fail && len(seen) == 3 {
			return failure
		}
		for _, m := range messages {
			if m.Reason != "a reason" || m.At.IsZero() || m.Type != "PrepareTransfer" {
				t.Errorf("dead letter %+v", m)
			}
			seen = append(seen, string(m.Body))
		}
		return nil
	}
	if n, err := s.MoveDeadLetters(testContext(t), "q", 3, store); n != 3 || !errors.Is(err, failure) {
		t.Errorf("%d dead letters were moved, %v", n, err)
	}
	fail = false
	if n, err := s.MoveDeadLetters(testContext(t), "q", 3, store); n != 1 || err != nil || !slices.Equal(seen, numbers(4)) {
		t.Errorf("%d dead letters were moved, %v; all are %q", n, err, seen)
	}
	wantQueued(t, s, "q", "5")
}
