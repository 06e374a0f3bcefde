package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
)

// mover moves messages from a queue to an inbox, as a link from the node to itself
// would, and starts again after a failure.
type mover struct {
	*Broker
	queue, inbox string
	moved        atomic.Int64 // confirmed, in all attempts
}

func (m *mover) run(ctx context.Context) {
	for ctx.Err() == nil {
		m.attempt(ctx)
	}
}

// attempt moves messages until a failure. Messages that the inbox has not confirmed are
// not confirmed to the queue.
func (m *mover) attempt(ctx context.Context) {
	c, err := m.Consume(ctx, m.queue)
	if err != nil {
		return
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var before uint64
	p, err := m.Publish(ctx, func(n uint64, err error) {
		if n > 0 && c.Confirm(n) == nil { // tags count from 1, too
			m.moved.Add(int64(n - before))
			before = n
		}
		if err != nil {
			cancel()
		}
	})
	if err != nil {
		return
	}
	defer p.Close()
	for {
		ds, err := c.Next(ctx, 256)
		if err != nil {
			return
		}
		for _, d := range ds {
			if p.Publish(ctx, incoming(m.inbox, "", string(d.Body))) != nil {
				return
			}
		}
	}
}

// RabbitMQ is killed while messages are moved, and started again: moving continues by
// itself, no message is lost, and the log has one line for each change.
func TestKillUnderLoad(t *testing.T) {
	s := rabbittest.Get(t)
	const count = 8_000
	log := new(logBuffer)
	b := openTest(t, s.URL(), Options{Logger: log.logger()})
	q := testPeer()
	if err := b.Bind(testContext(t), q); err != nil {
		t.Fatal(err)
	}
	o := newTestClient(t, s)
	m := &mover{Broker: b, queue: q.Queues[0], inbox: "accounts_in" + suffix()}
	o.inbox(m.inbox)
	s.AwaitSaved()
	var messages []broker.Outgoing
	for n := range count {
		messages = append(messages, broker.Outgoing{Body: []byte(fmt.Sprint(n))})
	}
	o.check(o.send(q.Exchange, q.PeerID+".1", publishings(messages)...))

	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); m.run(ctx) }()
	defer func() { cancel(); <-ended }()
	reach := func(n int64) error {
		if got := m.moved.Load(); got < n {
			return fmt.Errorf("%d messages are moved, want %d", got, n)
		}
		return nil
	}
	eventually(t, "moving before", func() error { return reach(1000) })
	s.Kill()
	if m.moved.Load() > count-1000 {
		t.Fatal("RabbitMQ was killed too late for this test")
	}
	o.check(s.Start())
	o = newTestClient(t, s)
	defer func() {
		if t.Failed() {
			t.Log(log)
		}
	}()
	eventually(t, "moving after", func() error {
		state, err := o.QueueDeclarePassive(m.queue, true, false, false, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		if state.Messages > 0 {
			return fmt.Errorf("%d messages are left", state.Messages)
		}
		return nil
	})
	cancel()
	<-ended
	o.check(b.Close()) // deliveries that were not confirmed would be in the queue again
	// RabbitMQ may hold the deliveries of the lost consumer for some seconds.
	seen := make(map[string]bool)
	eventually(t, "all messages", func() error {
		for _, d := range append(o.take(m.inbox, -1), o.take(m.queue, -1)...) {
			seen[string(d.Body)] = true
		}
		if len(seen) != count {
			return fmt.Errorf("%d of %d messages are in the queues", len(seen), count)
		}
		return nil
	})
	for text, want := range map[string]int{"connected to RabbitMQ": 2, "connection to RabbitMQ lost": 1} {
		if got := strings.Count(log.String(), text); got != want {
			t.Errorf("%q is logged %d times, want %d:\n%s", text, got, want, log)
		}
	}
	if n := strings.Count(log.String(), "\n"); n > 8 {
		t.Errorf("the log has %d lines, want at most 8:\n%s", n, log)
	}
}

// While RabbitMQ is short of memory it accepts no messages: publishing blocks, or is
// refused, and consuming continues. When it has memory again, publishing continues. A
// broker that publishes nothing detects both after a call of Health.
func TestMemoryAlarm(t *testing.T) {
	s := rabbittest.Get(t)
	log := new(logBuffer)
	const patience = 3 * testLimit // rabbitmqctl is slow on a busy machine
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{Logger: log.logger(), ConfirmTimeout: patience})
	inbox := "accounts_in" + suffix()
	o.inbox(inbox)
	q, c := bindAndConsume(t, b)
	o.check(o.send(q.Exchange, q.PeerID+".1", publishings(make([]broker.Outgoing, 2))...))
	p := openStream(t, b)
	o.check(p.Publish(testContext(t), incoming(inbox, "", "1")))
	if _, err := p.wait(1); err != nil {
		t.Fatal(err)
	}
	idle := openTest(t, s.URL(), Options{})
	bindAndConsume(t, idle)
	o.check(idle.Health())

	o.check(s.Control("set_vm_memory_high_watermark", "0.0001"))
	clear := func() error { return s.Control("set_vm_memory_high_watermark", "0.4") }
	cleared := false
	defer func() {
		if !cleared {
			_ = clear()
		}
	}()
	eventually(t, "noticing the alarm without publishing", func() error {
		if err := idle.Health(); !errors.Is(err, errBlocked) {
			return fmt.Errorf("trouble: got %v, want ErrBlocked", err)
		}
		return nil
	})
	o.check(p.Publish(testContext(t), incoming(inbox, "", "2"))) // makes RabbitMQ report that it is blocked
	eventually(t, "noticing the alarm", func() error {
		other, err := b.Publish(testContext(t), func(uint64, error) {})
		if err == nil {
			other.Close()
			return errors.New("a stream can be opened")
		}
		if !errors.Is(err, errBlocked) {
			t.Fatalf("got %v, want ErrBlocked", err)
		}
		return nil
	})
	if err := b.Health(); !errors.Is(err, errBlocked) {
		t.Errorf("trouble: got %v, want ErrBlocked", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := p.Publish(ctx, incoming(inbox, "", "x")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("publish: got %v, want it to wait", err)
	}
	ds, err := c.Next(testContext(t), 1)
	if err != nil || len(ds) == 0 {
		t.Fatalf("consuming: %v", err)
	}
	if err := c.DeadLetter(testContext(t), ds[0].Tag, "reason"); !errors.Is(err, errBlocked) {
		t.Errorf("DeadLetter: got %v, want ErrBlocked", err)
	}
	o.check(c.Confirm(ds[0].Tag))

	waiting := make(chan error, 1)
	longer, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	go func() { waiting <- p.Publish(longer, incoming(inbox, "", "3")) }()
	cleared = true
	o.check(clear())
	if err := <-waiting; err != nil {
		t.Error(err)
	}
	if n, err := p.wait(3); n != 3 || err != nil {
		t.Errorf("%d confirmed, %v, want 3", n, err)
	}
	for i, d := range o.take(inbox, 3) {
		if string(d.Body) != fmt.Sprint(i+1) {
			t.Errorf("message %d is %s", i+1, d.Body)
		}
	}
	if err := b.Health(); err != nil {
		t.Errorf("trouble afterwards: %v", err)
	}
	eventually(t, "noticing the end of the alarm", idle.Health)
	for _, text := range []string{"blocks publishing", "accepts messages again"} {
		if n := strings.Count(log.String(), text); n != 1 {
			t.Errorf("%q is logged %d times, want once:\n%s", text, n, log)
		}
	}
}

// A stream without unconfirmed messages detects immediately that the connection is lost,
// and so does a waiting consumer; the broker can be used again as soon as RabbitMQ is
// back, and closed while it is not.
func TestLostWhileIdle(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	other := openTest(t, s.URL(), Options{})
	inbox := "accounts_in" + suffix()
	o.inbox(inbox)
	q, c := bindAndConsume(t, b)
	p := openStream(t, b)
	openStream(t, other)
	waiting := make(chan error, 1)
	go func() {
		_, err := c.Next(testContext(t), 1)
		waiting <- err
	}()
	o.check(s.Stop())
	if n, err := p.wait(1); n != 0 || err == nil || errors.Is(err, broker.ErrClosed) {
		t.Errorf("%d confirmed, %v, want another error", n, err)
	}
	if err := <-waiting; err == nil || errors.Is(err, broker.ErrClosed) {
		t.Errorf("next: got %v, want another error", err)
	}
	if _, err := b.Publish(testContext(t), func(uint64, error) {}); err == nil {
		t.Error("a stream can be opened")
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	o.check(s.Start())
	eventually(t, "consuming again", func() error {
		var err error
		c, err = b.Consume(testContext(t), q.Queues[0])
		return err
	})
	p = openStream(t, b)
	o.check(p.Publish(testContext(t), incoming(inbox, "", "1")))
	if n, err := p.wait(1); n != 1 || err != nil {
		t.Errorf("%d confirmed, %v", n, err)
	}
	o = newTestClient(t, s)
	o.check(o.send(q.Exchange, q.PeerID+".1", publishings(make([]broker.Outgoing, 1))...))
	if ds, err := c.Next(testContext(t), 1); err != nil || len(ds) != 1 {
		t.Errorf("got %d messages, %v", len(ds), err)
	}
}
