package embedded

import (
	"errors"
	"slices"
	"testing"

	"peerlink/broker"
)

// sendOrSetAside sends a message, and returns what has become of it.
func sendOrSetAside(t *testing.T, s *Store, m Sending) (Outcome, error) {
	t.Helper()
	type result struct {
		outcome Outcome
		err     error
	}
	done := make(chan result, 1)
	if err := s.SendOrSetAside(testContext(t), m, func(o Outcome, err error) { done <- result{o, err} }); err != nil {
		return 0, err
	}
	r := <-done
	return r.outcome, r.err
}

// An invalid message becomes a dead letter of the queue that it is routed to, and does not disturb
// those around it: a consumer gets them in order, and confirms them all.
func TestSendInvalid(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	c := consume(t, s, "q")
	for _, body := range []string{"1", "wrong", "2"} {
		m := Sending{Exchange: "to_debtors", RoutingKey: "q.1", Outgoing: outgoing(body)[0]}
		want := Queued
		if body == "wrong" {
			m.Invalid, want = "a reason\x00", SetAside
		}
		if got, err := sendOrSetAside(t, s, m); got != want || err != nil {
			t.Fatalf("%s: outcome %v, %v", body, got, err)
		}
	}
	var bodies []string
	for len(bodies) < 2 {
		deliveries, err := c.Next(testContext(t), 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range deliveries {
			bodies = append(bodies, string(d.Body))
			if err := c.Confirm(d.Tag); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(bodies, []string{"1", "2"}) {
		t.Errorf("the consumer got %q", bodies)
	}
	wantQueued(t, s, "q")
	for m, err := range s.List(testContext(t), "q") {
		if err != nil || string(m.Body) != "wrong" || m.Reason != "a reason\uFFFD" || m.At.IsZero() {
			t.Errorf("dead letter %+v, %v", m, err)
		}
	}
}

// A message that no binding matches is stored in one place: as its answer in an inbox, or as a dead
// letter. A retry routes the dead letter again: it stays while there is no binding, and is
// moved to the queue, once there is one.
func TestSendUnroutable(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{})
	send := func(body string, answer *broker.Incoming) Outcome {
		t.Helper()
		o, err := sendOrSetAside(t, s, Sending{
			Exchange: "to_debtors", RoutingKey: "q.1", Outgoing: outgoing(body)[0], Unroutable: func(*broker.Outgoing) *broker.Incoming { return answer },
		})
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	queue := UnroutableQueue("to_debtors")
	if o := send("1", &broker.Incoming{Exchange: "inbox", Body: []byte("answer")}); o != Answered {
		t.Errorf("outcome %v", o)
	}
	if o := send("2", nil); o != SetAside {
		t.Errorf("outcome %v", o)
	}
	if o := send("3", &broker.Incoming{Body: []byte("without an inbox")}); o != SetAside {
		t.Errorf("outcome %v", o)
	}
	wantQueued(t, s, "inbox", "answer")
	if got := asideBodies(t, s, queue); !slices.Equal(got, []string{"2", "3"}) {
		t.Fatalf("the dead letters are %q", got)
	}
	if n, err := s.Retry(testContext(t), queue, []string{"1", "2", "9"}); n != 0 || !errors.Is(err, broker.ErrUnroutable) || !errors.Is(err, broker.ErrNoDeadLetter) {
		t.Errorf("without a binding, %d messages were retried, %v", n, err)
	}
	declareTest(t, s, "q")
	if n, err := s.Retry(testContext(t), queue, []string{"1", "2"}); n != 2 || err != nil {
		t.Errorf("%d messages were retried, %v", n, err)
	}
	wantQueued(t, s, "q", "2", "3")
	if got := asideBodies(t, s, queue); len(got) > 0 {
		t.Errorf("the dead letters are %q", got)
	}
}
