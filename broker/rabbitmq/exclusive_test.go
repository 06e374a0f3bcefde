package rabbitmq

import (
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
)

// One process consumes a queue, of any type, whether the other process is a peerlink or,
// like the reference, consumes non-exclusively. When the consumer ends, the queue is
// available, also immediately after the connection of the consumer was lost. RabbitMQ
// counts consumers of a quorum queue on a dead node: a consumer without a lock prevents
// another one only for a short time.
func TestOneProcessConsumes(t *testing.T) {
	s := rabbittest.Get(t)
	o := newTestClient(t, s)
	b := openTest(t, s.URL(), Options{})
	other := openTest(t, s.URL(), Options{})
	for _, kind := range []QueueType{Classic, Quorum} {
		t.Run(string(kind), func(t *testing.T) {
			queue := "alone." + string(kind)
			_, err := o.QueueDeclare(queue, true, false, false, false, amqp.Table{"x-queue-type": string(kind)})
			o.check(err)
			wantInUse := func(t *testing.T, by string) {
				t.Helper()
				ctx := testContext(t)
				if err := b.CheckInUse(ctx, queue); !errors.Is(err, broker.ErrInUse) {
					t.Errorf("CheckInUse beside %s: got %v, want ErrInUse", by, err)
				}
				if _, err := b.Consume(ctx, queue); !errors.Is(err, broker.ErrInUse) {
					t.Errorf("Consume beside %s: got %v, want ErrInUse", by, err)
				}
			}
			c, err := other.Consume(testContext(t), queue)
			o.check(err)
			wantInUse(t, "another process")
			other.consuming.latest().cut()
			consumes := func() error {
				c, err := b.Consume(testContext(t), queue)
				if err == nil {
					err = c.Close()
				}
				return err
			}
			eventually(t, "consuming when the connection of the other is lost", consumes)
			if _, err := c.Next(testContext(t), 1); err == nil {
				t.Error("the consumer whose connection is lost returns no error")
			}
			o.check(c.Close())

			reference, err := o.conn.Channel()
			o.check(err)
			_, err = reference.Consume(queue, "", false, false, false, false, nil)
			o.check(err)
			b.forgetOtherConsumers(queue)
			if err := b.CheckInUse(testContext(t), queue); !errors.Is(err, broker.ErrInUse) {
				t.Errorf("CheckInUse beside the reference: got %v, want ErrInUse", err)
			}
			if kind == Quorum {
				eventually(t, "consuming beside a consumer that has no lock", consumes)
			} else {
				wantInUse(t, "the reference")
			}
			o.check(reference.Close())
			eventually(t, "consuming when all others are gone", consumes)
		})
	}
}

// A missing permission has the same reply code as a queue in use, but is reported
// differently: waiting would not help.
func TestRefusedIsNotInUse(t *testing.T) {
	s := rabbittest.Get(t)
	o := newTestClient(t, s)
	const queue = "forbidden in exclusive use"
	_, err := o.QueueDeclare(queue, true, false, false, false, nil)
	o.check(err)
	o.check(s.Control("add_user", "reader", "secret"))
	o.check(s.Control("set_permissions", "reader", "", "", ""))
	b := openTest(t, s.URLFor("reader:secret"), Options{})
	_, err = b.Consume(testContext(t), queue)
	if !hasReplyCode(err, amqp.AccessRefused) || errors.Is(err, broker.ErrInUse) {
		t.Errorf("got %v, want a refusal because of the missing permission", err)
	}
}

// A user without permission for the lock consumes nevertheless, like the reference, and
// the log describes the consequence.
func TestConsumeWithoutLock(t *testing.T) {
	s := rabbittest.Get(t)
	o := newTestClient(t, s)
	const queue = "no lock"
	_, err := o.QueueDeclare(queue, true, false, false, false, nil)
	o.check(err)
	o.check(s.Control("add_user", "consumer", "secret"))
	o.check(s.Control("set_permissions", "consumer", "", "", ".*"))
	log := new(logBuffer)
	b := openTest(t, s.URLFor("consumer:secret"), Options{Logger: log.logger()})
	o.check(b.CheckInUse(testContext(t), queue))
	c, err := b.Consume(testContext(t), queue)
	o.check(err)
	o.check(o.send("", queue, amqp.Publishing{Body: []byte("1")}))
	if ds, err := c.Next(testContext(t), 1); err != nil || len(ds) != 1 {
		t.Errorf("got %d messages, %v, want 1", len(ds), err)
	}
	if !strings.Contains(log.String(), "nothing prevents two processes") {
		t.Errorf("the log has no warning of the missing lock:\n%s", log)
	}
	if err := b.CheckInUse(testContext(t), queue); !errors.Is(err, broker.ErrInUse) {
		t.Errorf("CheckInUse beside a consumer: got %v, want ErrInUse", err)
	}
}

// mute is a connection whose writes are discarded while gone is set, as when the
// network or the machine is down.
type mute struct {
	net.Conn
	gone *atomic.Bool
}

func (m mute) Write(p []byte) (int, error) {
	if m.gone.Load() {
		return len(p), nil
	}
	return m.Conn.Write(p)
}

// A queue whose consumer has disappeared without closing its connection becomes available
// when RabbitMQ has missed its heartbeats.
func TestVanishedConsumer(t *testing.T) {
	s := rabbittest.Get(t)
	o := newTestClient(t, s)
	const queue = "vanished"
	_, err := o.QueueDeclare(queue, true, false, false, false, nil)
	o.check(err)
	var gone atomic.Bool
	conn, err := amqp.DialConfig(s.URL(), amqp.Config{Heartbeat: time.Second, Dial: func(network, addr string) (net.Conn, error) {
		c, err := net.Dial(network, addr)
		return mute{c, &gone}, err
	}})
	o.check(err)
	defer conn.Close()
	ch, err := conn.Channel()
	o.check(err)
	_, err = ch.Consume(queue, "", false, true, false, false, nil)
	o.check(err)
	b := openTest(t, s.URL(), Options{})
	gone.Store(true)
	if _, err := b.Consume(testContext(t), queue); !errors.Is(err, broker.ErrInUse) {
		t.Errorf("before RabbitMQ detects the loss: got %v, want ErrInUse", err)
	}
	eventually(t, "consuming", func() error {
		_, err := b.Consume(testContext(t), queue)
		return err
	})
}

// While RabbitMQ does not answer about the lock of a queue, as in a cluster when a node
// hangs or is down, the queue is consumed without the lock. When RabbitMQ answers again,
// the consumer ends gracefully, and the next one acquires the lock.
func TestLockSilent(t *testing.T) {
	s := rabbittest.Get(t)
	log := new(logBuffer)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{Logger: log.logger()})
	q := testPeer()
	queue := q.Queues[0]
	o.check(b.Bind(testContext(t), q))
	o.check(o.send(q.Exchange, q.PeerID+".1", publishings(make([]broker.Outgoing, 2))...))
	b.setLockSilent(queue, true)
	c, err := b.Consume(testContext(t), queue)
	o.check(err)
	ds, err := c.Next(testContext(t), 1)
	o.check(err)
	if want := "does not answer"; !strings.Contains(log.String(), want) {
		t.Errorf("the log lacks %q:\n%s", want, log)
	}
	b.setLockSilent(queue, false)
	for err == nil {
		o.check(c.Confirm(ds[len(ds)-1].Tag))
		ds, err = c.Next(testContext(t), 1)
	}
	if !errors.Is(err, broker.ErrReopen) {
		t.Errorf("got %v, want ErrReopen", err)
	}
	o.check(c.Close())
	c, err = b.Consume(testContext(t), queue)
	o.check(err)
	defer c.Close()
	if err := openTest(t, s.URL(), Options{}).CheckInUse(testContext(t), queue); !errors.Is(err, broker.ErrInUse) {
		t.Errorf("the next one has no lock: %v", err)
	}
}

// A consumer without the lock ends also while its queue is empty, as soon as RabbitMQ answers
// about the lock again: it does not wait for a message or confirmation, because a second
// process could consume the queue until then.
func TestIdleConsumerGetsLock(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	q := testPeer()
	o.check(b.Bind(testContext(t), q))
	b.setLockSilent(q.Queues[0], true)
	c, err := b.Consume(testContext(t), q.Queues[0])
	o.check(err)
	defer c.Close()
	b.setLockSilent(q.Queues[0], false)
	if ds, err := c.Next(testContext(t), 1); !errors.Is(err, broker.ErrReopen) {
		t.Errorf("got %d messages, %v, want ErrReopen", len(ds), err)
	}
}
