package rabbitmq

import (
	"errors"
	"slices"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
)

// Bindings that RabbitMQ has lost while it was down are restored when the queue is
// consumed again; those of an unbound peer are not.
func TestBindingsLost(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	kept, c := bindAndConsume(t, b)
	unbound, d := bindAndConsume(t, b)
	o.check(b.Unbind(testContext(t), unbound))
	o.check(o.QueueUnbind(kept.Queues[0], kept.Queues[0], peerExchange(kept), nil))
	o.check(o.ExchangeUnbind(peerExchange(kept), kept.BindingKey, kept.Exchange, false, nil))
	send := func(q broker.PeerBinding) error {
		return newTestClient(t, s).send(q.Exchange, q.PeerID+".1", publishings(make([]broker.Outgoing, 1))...)
	}
	if err := send(kept); !errors.Is(err, broker.ErrUnroutable) {
		t.Fatalf("without bindings: got %v, want ErrUnroutable", err)
	}
	o.check(s.Control("close_all_connections", "test"))
	for _, c := range []broker.Consumer{c, d} {
		if _, err := c.Next(testContext(t), 1); err == nil || errors.Is(err, broker.ErrClosed) {
			t.Fatalf("got %v, want another error", err)
		}
		o.check(c.Close())
	}
	for _, q := range []broker.PeerBinding{kept, unbound} {
		eventually(t, "consuming again", func() error {
			c, err := b.Consume(testContext(t), q.Queues[0])
			if err == nil {
				err = c.Close()
			}
			return err
		})
	}
	if err := send(kept); err != nil {
		t.Errorf("after reconnecting: %v", err)
	}
	if err := send(unbound); !errors.Is(err, broker.ErrUnroutable) {
		t.Errorf("to the unbound peer: got %v, want ErrUnroutable", err)
	}
}

// After a change of the names of queues, new messages go to the present queues only, and
// UnbindFormer returns the names of the former queues that still have messages, so that the
// caller can send them. It works in a process that has never bound the former queues.
func TestUnbindFormer(t *testing.T) {
	s := rabbittest.Get(t)
	o := newTestClient(t, s)
	q, c := bindAndConsume(t, openTest(t, s.URL(), Options{}))
	o.check(c.Close())
	send := func(n int) {
		t.Helper()
		o.check(o.send(q.Exchange, q.PeerID+".1", publishings(make([]broker.Outgoing, n))...))
	}
	send(3)
	restarted := openTest(t, s.URL(), Options{})
	renamed := q
	renamed.Queues = []string{q.Queues[0] + ".renamed"}
	former := []string{q.Queues[0], "there.is.no.such.queue"}
	o.check(restarted.Bind(testContext(t), renamed))
	for range 2 {
		waiting, err := restarted.UnbindFormer(testContext(t), renamed, former)
		if err != nil || !slices.Equal(waiting, q.Queues) {
			t.Errorf("waiting: %q, %v", waiting, err)
		}
	}
	send(20)
	for queue, want := range map[string]int{q.Queues[0]: 3, renamed.Queues[0]: 20} {
		if got, err := o.QueueDeclarePassive(queue, true, false, false, false, nil); err != nil || got.Messages != want {
			t.Errorf("%s has %d messages, want %d (%v)", queue, got.Messages, want, err)
		}
	}
	if _, err := o.QueuePurge(q.Queues[0], false); err != nil {
		t.Fatal(err)
	}
	if waiting, err := restarted.UnbindFormer(testContext(t), renamed, former); err != nil || len(waiting) > 0 {
		t.Errorf("an empty queue: %q, %v", waiting, err)
	}
}

// If a connection has no more channels in the middle of a declaration, the declaration is repeated on
// another connection, and the result is that of the repetition.
func TestDeclarerResultAfterRepetition(t *testing.T) {
	b := openTest(t, rabbittest.Get(t).URL(), Options{})
	calls := 0
	got, err := declarerResult(testContext(t), b, func(declarer) (int, error) {
		if calls++; calls == 1 {
			return calls, explain(amqp.ErrChannelMax)
		}
		return calls, nil
	})
	if got != 2 || err != nil {
		t.Errorf("got %d, %v, want 2", got, err)
	}
}
