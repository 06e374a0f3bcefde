package rabbitmq

import (
	"context"
	"strings"
	"testing"
	"time"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
)

// stopLimit bounds the time, on a busy machine, until calls that wait for RabbitMQ have
// ended.
const stopLimit = 5 * time.Second

func within(t *testing.T, what string, limit time.Duration, do func()) {
	t.Helper()
	start := time.Now()
	do()
	if took := time.Since(start); took > limit {
		t.Errorf("%s has taken %v, more than %v", what, took.Round(time.Millisecond), limit)
	}
}

// If RabbitMQ reads nothing, because it is short of memory, and all buffers are
// full, a write still ends with its context, and the broker can be closed.
func TestStopDuringAlarm(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{MaxPending: 65_000})
	inbox := "accounts_in" + suffix()
	o.inbox(inbox)
	p := openStream(t, b)
	o.check(s.Control("set_vm_memory_high_watermark", "0.0001"))
	defer func() { o.check(s.Control("set_vm_memory_high_watermark", "0.4")) }()
	large := strings.Repeat("x", 64<<10)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stuck := make(chan error, 1)
	go func() {
		for {
			// It must not matter whether RabbitMQ has reported that it is blocked.
			if err := p.Publisher.(*publisher).write(ctx, incoming(inbox, "", large)); err != nil {
				stuck <- err
				return
			}
		}
	}()
	inner := p.Publisher.(*publisher)
	eventually(t, "filling all buffers", func() error {
		before := len(inner.sent)
		time.Sleep(100 * time.Millisecond)
		if n := len(inner.sent); n != before || n < 10 {
			return errBlocked
		}
		return nil
	})
	within(t, "ending the write", stopLimit, func() {
		cancel()
		<-stuck
	})
	if _, err := b.Publish(testContext(t), func(uint64, error) {}); err == nil {
		t.Log("there is a new connection")
	}
	within(t, "closing", stopLimit, func() { b.Close() })
}

// A RabbitMQ that hangs does not block the end of a consumer with pending
// acknowledgements, nor of the broker.
func TestStopWhileFrozen(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	q, c := bindAndConsume(t, b)
	o.check(o.send(q.Exchange, q.PeerID+".1", publishings(make([]broker.Outgoing, 10))...))
	ds, err := c.Next(testContext(t), 1)
	o.check(err)
	o.check(s.Pause())
	defer func() { o.check(s.Resume()) }()
	o.check(c.Confirm(ds[0].Tag))
	within(t, "closing the consumer", stopLimit, func() { c.Close() })
	within(t, "closing the broker", stopLimit, func() { b.Close() })
}

// A connection on which RabbitMQ does not respond is closed after the timeout, and the
// next attempt uses another one.
func TestSilentConnectionIsReplaced(t *testing.T) {
	s := rabbittest.Get(t)
	b := openTest(t, s.URL(), Options{ConnectTimeout: 3 * time.Second})
	q, c := bindAndConsume(t, b)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	before := b.consuming.latest()
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	_, err := b.Consume(testContext(t), q.Queues[0])
	if resumed := s.Resume(); resumed != nil {
		t.Fatal(resumed)
	}
	if err == nil {
		t.Fatal("a frozen RabbitMQ has answered")
	}
	eventually(t, "consuming", func() error {
		c, err := b.Consume(testContext(t), q.Queues[0])
		if err == nil {
			err = c.Close()
		}
		return err
	})
	if b.consuming.latest() == before {
		t.Error("the connection was not replaced")
	}
}
