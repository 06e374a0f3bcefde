package rabbitmq

import (
	"fmt"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
)

// A request for a queue reaches the process that consumes it, whose messages are delivered
// and confirmed as before. Other messages to the lock are ignored.
func TestAsk(t *testing.T) {
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
				t.Errorf("asked for by one with %d queues, want %d", has, n)
			}
		case <-testContext(t).Done():
			t.Fatal("nobody is heard")
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
