package rabbitmq

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/internal/wait"
)

// A request for a queue reaches the process that consumes it, whose messages are delivered
// and confirmed as before. Other messages to the lock are ignored.
func TestRequestQueue(t *testing.T) {
	s := rabbittest.Get(t)
	o, b, other := newTestClient(t, s), openTest(t, s.URL(), Options{}), openTest(t, s.URL(), Options{})
	q, c := bindAndConsume(t, b)
	queue := q.Queues[0]
	for _, m := range []amqp.Publishing{{Body: []byte("1")}, {Type: requestType}, {Type: requestType, Body: []byte("-1")}, {Type: requestType, Body: []byte("12345678901")}} {
		o.check(o.send("", lockQueue(queue), m))
	}
	for n := range 3 {
		o.check(o.send(q.Exchange, q.PeerID+".1", amqp.Publishing{Body: fmt.Append(nil, n)}))
		o.check(other.RequestQueue(testContext(t), queue, n))
		select {
		case has := <-c.(broker.QueueYielder).QueueRequests():
			if has != n {
				t.Errorf("got a request of a process with %d queues, want %d", has, n)
			}
		case <-testContext(t).Done():
			t.Fatal("no request has arrived")
		}
		ds, err := c.Next(testContext(t), 10)
		if err != nil || len(ds) != 1 || string(ds[0].Body) != fmt.Sprint(n) {
			t.Fatalf("got %v, %v", ds, err)
		}
		o.check(c.Confirm(ds[0].Tag))
	}
	o.check(c.Close())
	if n := len(o.take(queue, -1)); n != 0 {
		t.Errorf("%d messages are left", n)
	}
	o.check(other.RequestQueue(testContext(t), queue, 1)) // the queue has no consumer
}

// RabbitMQ counts the deliveries of the queue and of its lock together, but the library may
// deliver a later one of the queue first. The consumer waits for the earlier one of the lock. If
// the lock is lost meanwhile, the consumer ends with RabbitMQ's reason immediately; if nothing
// arrives, it ends with an error about the gap.
func TestDeliveriesOutOfOrder(t *testing.T) {
	for name, test := range map[string]struct {
		arrives func(c *consumer, locked chan amqp.Delivery) error // after a delivery of the queue with tag 2
		want    string                                             // the error that ends the consumer
		after   time.Duration                                      // the time until that
	}{
		"the earlier one": {func(c *consumer, locked chan amqp.Delivery) error {
			locked <- amqp.Delivery{DeliveryTag: 1, Type: requestType, Body: []byte("3")}
			if has := <-c.QueueRequests(); has != 3 {
				return fmt.Errorf("got a request of a process with %d queues, want 3", has)
			}
			ds, err := c.Next(c.life, 10)
			if err == nil && (len(ds) != 1 || ds[0].Tag != 2) {
				err = fmt.Errorf("got %+v, want the delivery with tag 2", ds)
			}
			c.stop()
			return err
		}, broker.ErrClosed.Error(), 0},
		"the loss of the lock": {func(c *consumer, locked chan amqp.Delivery) error {
			close(locked)
			return nil
		}, errGone.Error(), 0},
		"nothing": {func(*consumer, chan amqp.Delivery) error { return nil },
			"RabbitMQ delivers a message with tag 2, expected 1", reorderTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cancelled := make(chan string, 1)
				cancelled <- "lock"
				c := &consumer{
					broker: &Broker{opts: Options{Prefetch: 10}}, live: &liveConn{born: time.Now()}, cancelled: cancelled,
					window: window{prefetch: 10}, unacked: newUnacked(), arrived: wait.NewSignal(), due: wait.NewSignal(),
					requests: make(chan int, 1), ended: make(chan struct{}),
				}
				c.life, c.stop = context.WithCancel(t.Context())
				defer c.stop()
				deliveries, locked := make(chan amqp.Delivery), make(chan amqp.Delivery)
				start := time.Now()
				go c.run(deliveries, locked)
				deliveries <- amqp.Delivery{DeliveryTag: 2}
				if err := test.arrives(c, locked); err != nil {
					t.Error(err)
				}
				<-c.ended
				if took := time.Since(start); c.err.Error() != test.want || took != test.after {
					t.Errorf("after %v: got %v, want after %v: %s", took, c.err, test.after, test.want)
				}
			})
		})
	}
}
