package link_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// stuck is a broker that cannot store dead letters while the test says so, like
// RabbitMQ during an alarm. It counts the attempts.
type stuck struct {
	broker.Broker
	now      atomic.Bool
	attempts atomic.Int32
	most     int // how many messages may be excluded at once; 0: as many as the broker permits
}

// stuckConsumer confirms nothing behind a message that could not become a dead letter.
type stuckConsumer struct {
	broker.Consumer
	stuck *stuck

	mu        sync.Mutex
	kept      map[uint64]bool
	confirmed uint64
}

func (s *stuck) Consume(ctx context.Context, queue string) (broker.Consumer, error) {
	c, err := s.Broker.Consume(ctx, queue)
	return &stuckConsumer{Consumer: c, stuck: s, kept: make(map[uint64]bool)}, err
}

func (c *stuckConsumer) Exclude(tag uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stuck.most > 0 && len(c.kept) >= c.stuck.most {
		return broker.ErrTooManyExcluded
	}
	c.kept[tag] = true
	return c.Consumer.Exclude(tag)
}

func (c *stuckConsumer) DeadLetter(ctx context.Context, tag uint64, reason string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stuck.attempts.Add(1)
	c.kept[tag] = true
	if c.stuck.now.Load() {
		return errors.New("no room for it")
	}
	if err := c.Consumer.DeadLetter(ctx, tag, reason); err != nil {
		return err
	}
	delete(c.kept, tag)
	return c.confirm()
}

func (c *stuckConsumer) Confirm(tag uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.confirmed = max(c.confirmed, tag)
	return c.confirm()
}

func (c *stuckConsumer) confirm() error {
	through := c.confirmed
	for tag := range c.kept {
		through = min(through, tag-1)
	}
	return c.Consumer.Confirm(through)
}

// A message that can neither be sent nor become a dead letter does not block the
// messages behind it. It is kept until it can become a dead letter, and only then that
// is logged.
func TestSetAsideLater(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	b := &stuck{Broker: other.Config.Broker}
	b.now.Store(true)
	other.Config.Broker = b
	authority.Start()
	other.Start()
	bad := broker.Outgoing{Type: "PrepareTransfer", ContentType: "application/json", Body: []byte("{")}
	for n := range 10 {
		other.Put(authority, bad, linktest.Message(t, other, authority, n))
	}
	authority.Take(10)
	if text := other.Log.String(); strings.Contains(text, `msg="message set aside`) {
		t.Errorf("the log says that a message is set aside:\n%s", text)
	}
	tried := b.attempts.Load()
	linktest.Eventually(t, "trying again", func() error {
		if n := b.attempts.Load(); n < tried+10 {
			return fmt.Errorf("%d attempts, %d before", n, tried)
		}
		return nil
	})
	b.now.Store(false)
	other.WaitDrained(authority, 10)
	if n := strings.Count(other.Log.String(), `msg="message set aside`); n != 10 {
		t.Errorf("the log says %d times that a message is set aside, want 10", n)
	}
	if n := strings.Count(authority.Log.String(), "msg=receiving"); n != 1 {
		t.Errorf("%d connections were used, want 1", n)
	}
}

// While messages can be neither sent nor set aside, status and log say so, with the reason. When they are
// as many as the broker holds, so that nothing is sent from the queue, the verdict is another one. Both
// end with the cause.
func TestSetAsideFull(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	b := &stuck{Broker: other.Config.Broker, most: 3}
	b.now.Store(true)
	other.Config.Broker = b
	authority.Start()
	other.Start()
	bad := broker.Outgoing{Type: "PrepareTransfer", ContentType: "application/json", Body: []byte("{")}
	for n := range 3 {
		other.Put(authority, bad, linktest.Message(t, other, authority, n))
	}
	authority.Take(3)
	heldBecome(t, other, func(h link.Held) bool {
		return h.Messages == 3 && !h.Stopped && strings.Contains(h.Reason, "no room for it")
	})
	waitForLog(t, other, "message can be neither sent nor set aside: it stays in the queue")
	outBecomes(t, other, authority, link.VerdictLinked, "")

	other.Put(authority, bad, linktest.Message(t, other, authority, 3))
	outBecomes(t, other, authority, link.VerdictCannotSetAside, "no room for it")
	heldBecome(t, other, func(h link.Held) bool { return h.Messages == 3 && h.Stopped })

	b.now.Store(false)
	authority.Take(1)
	other.WaitDrained(authority, 4)
	outBecomes(t, other, authority, link.VerdictLinked, "")
	heldBecome(t, other, func(h link.Held) bool { return h.Messages == 0 })
}

// heldBecome waits until the messages that a node can neither send to its only peer nor set aside are as
// ok says. They are a zero Held if there are none.
func heldBecome(t *testing.T, n *linktest.Node, ok func(link.Held) bool) {
	t.Helper()
	linktest.Eventually(t, "messages held", func() error {
		var h link.Held
		for _, found := range n.Service.Status().Peers[0].Held {
			h = found
		}
		if !ok(h) {
			return fmt.Errorf("%+v", h)
		}
		return nil
	})
}

// More messages than RabbitMQ delivers at first can be neither sent nor set aside, because the queue for
// those set aside is full and takes no more: the messages behind them are sent, and those in front
// are set aside when there is room.
func TestSetAsideQueueFull(t *testing.T) {
	t.Parallel()
	authority, other := linktest.NewOn(t, aa, linktest.RabbitMQ), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	s := rabbittest.Get(t)
	control := func(args ...string) {
		t.Helper()
		if err := s.Control(args...); err != nil {
			t.Fatal(err)
		}
	}
	control("set_policy", "full", fmt.Sprintf(`^peer\.%s\.0\.XQ$`, other.Identity().ID), `{"max-length":3,"overflow":"reject-publish"}`, "--apply-to", "queues")
	defer s.Control("clear_policy", "full")
	other.Start()
	authority.Start()
	linktest.Eventually(t, "the policy of the queue", func() error {
		if text, err := s.ControlOutput("list_queues", "--quiet", "name", "policy"); err != nil || !strings.Contains(text, "XQ\tfull") {
			return fmt.Errorf("%s, %v", text, err)
		}
		return nil
	})
	const bad = 2100 // more than the prefetch count
	messages := make([]broker.Outgoing, bad)
	for n := range messages {
		messages[n] = broker.Outgoing{Type: "PrepareTransfer", ContentType: "application/json", Body: fmt.Append(nil, n)}
	}
	authority.Put(other, messages...)
	authority.Put(other, numbered(t, authority, other, 0, 100)...)
	other.Take(100)
	heldBecome(t, authority, func(h link.Held) bool {
		// A quorum queue may take some more than its limit.
		return h.Messages <= bad-3 && h.Messages > bad-20 && !h.Stopped && strings.Contains(h.Reason, ".XQ is full")
	})
	control("clear_policy", "full")
	linktest.Eventually(t, "setting aside", func() error {
		if n := authority.Service.Status().Peers[0].Counts.SetAside; n < bad {
			return fmt.Errorf("%d of %d are set aside", n, bad)
		}
		return nil
	})
	authority.WaitDrained(other, bad)
}

// late is a broker that makes a message a dead letter only after a message behind it
// was confirmed.
type late struct{ broker.Broker }

type lateConsumer struct {
	broker.Consumer
	confirmed chan struct{} // closed by the first confirmation
	once      sync.Once
}

func (l late) Consume(ctx context.Context, queue string) (broker.Consumer, error) {
	c, err := l.Broker.Consume(ctx, queue)
	return &lateConsumer{Consumer: c, confirmed: make(chan struct{})}, err
}

func (c *lateConsumer) Confirm(tag uint64) error {
	err := c.Consumer.Confirm(tag)
	c.once.Do(func() { close(c.confirmed) })
	return err
}

func (c *lateConsumer) DeadLetter(ctx context.Context, tag uint64, reason string) error {
	select {
	case <-c.confirmed:
	case <-ctx.Done():
		return ctx.Err()
	}
	return c.Consumer.DeadLetter(ctx, tag, reason)
}

// A message that is to become a dead letter is not lost when a message behind it is
// confirmed before the broker is called for it.
func TestSetAsideBeginsLate(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	other.Config.Broker = late{other.Config.Broker}
	authority.Start()
	other.Start()
	bad := broker.Outgoing{Type: "PrepareTransfer", ContentType: "application/json", Body: []byte("{")}
	other.Put(authority, bad, linktest.Message(t, other, authority, 1))
	authority.Take(1)
	other.WaitDrained(authority, 1)
}

// counting counts how often a queue is consumed.
type counting struct {
	broker.Broker
	opened atomic.Int32
}

func (c *counting) Consume(ctx context.Context, queue string) (broker.Consumer, error) {
	c.opened.Add(1)
	return c.Broker.Consume(ctx, queue)
}

// No message is taken from the queue of a peer that refuses CONNECT: a broker may count
// the deliveries of a message, and drop it in the end.
func TestNothingTakenBeforeConnected(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	b := &counting{Broker: other.Config.Broker}
	other.Config.Broker = b
	authority.Config.MaxConnsPerPeer = -1
	authority.Start()
	other.Start()
	linktest.Eventually(t, "a refused attempt", func() error {
		if text := authority.Log.String(); strings.Count(text, "Too many connections") == 0 {
			return errors.New(text)
		}
		return nil
	})
	if n := b.opened.Load(); n > 0 {
		t.Errorf("the queue was opened %d times", n)
	}
}
