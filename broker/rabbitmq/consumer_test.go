package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
)

// bindAndConsume binds a new peer and opens its queue.
func bindAndConsume(t *testing.T, b *Broker) (broker.PeerBinding, broker.Consumer) {
	t.Helper()
	q := testPeer()
	if err := b.Bind(testContext(t), q); err != nil {
		t.Fatal(err)
	}
	c, err := b.Consume(testContext(t), q.Queues[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return q, c
}

// setAsideNext makes the next message a dead letter.
func setAsideNext(t *testing.T, c broker.Consumer, reason string) {
	t.Helper()
	ds, err := c.Next(testContext(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.DeadLetter(testContext(t), ds[0].Tag, reason); err != nil {
		t.Fatal(err)
	}
}

// A dead letter has all properties of the original, and the reason, time and origin;
// except for properties that would route it elsewhere, expire it, or make RabbitMQ refuse
// it.
func TestDeadLetterProperties(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	q, c := bindAndConsume(t, b)
	elsewhere, err := o.QueueDeclare("elsewhere"+suffix(), true, false, false, false, nil)
	o.check(err)
	headers := amqp.Table{"a": "b", "n": int64(5), "list": []any{"x", amqp.Table{"y": true}}}
	m := amqp.Publishing{
		Headers: maps.Clone(headers), ContentType: "text/plain", ContentEncoding: "utf-8", DeliveryMode: amqp.Transient,
		Priority: 3, CorrelationId: "c", ReplyTo: "r", Expiration: "60000", MessageId: "m", Timestamp: time.Unix(1e9, 0),
		Type: "T", UserId: "guest", AppId: "app", Body: []byte("body"),
	}
	m.Headers["CC"] = []any{elsewhere.Name} // more routing keys: for the default exchange, names of queues
	o.check(o.send(q.Exchange, q.PeerID+".1", m))
	setAsideNext(t, c, "\xff"+strings.Repeat("x", 2*maxReason))
	d := o.take(q.Queues[0]+".XQ", 1)[0]
	if at, ok := d.Headers[headerTime].(time.Time); !ok || time.Since(at).Abs() > testLimit {
		t.Errorf("the dead letter has the time %v", d.Headers[headerTime])
	}
	headers[headerTime] = d.Headers[headerTime]
	headers[headerReason], headers[headerExchange], headers[headerRoutingKey] = "\uFFFD"+strings.Repeat("x", maxReason-1), q.Exchange, q.PeerID+".1"
	want := amqp.Delivery{
		Headers: headers, ContentType: "text/plain", ContentEncoding: "utf-8", DeliveryMode: amqp.Persistent,
		Priority: 3, CorrelationId: "c", ReplyTo: "r", MessageId: "m", Timestamp: d.Timestamp,
		Type: "T", AppId: "app", Body: []byte("body"), RoutingKey: q.Queues[0] + ".XQ",
	}
	d.Acknowledger, d.DeliveryTag, d.MessageCount = nil, 0, 0
	if !reflect.DeepEqual(d, want) || !d.Timestamp.Equal(m.Timestamp) {
		t.Errorf("got  %+v\nwant %+v", d, want)
	}
	if more := o.take(elsewhere.Name, -1); len(more) > 0 {
		t.Error("the dead letter was also delivered to another queue")
	}
}

// Headers that are too large for additions are omitted: otherwise the message would remain
// the first of the queue.
func TestDeadLetterLargeHeaders(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	q, c := bindAndConsume(t, b)
	o.check(o.send(q.Exchange, q.PeerID+".1", amqp.Publishing{Headers: amqp.Table{
		"large": []any{strings.Repeat("x", 60_000), amqp.Table{"y": []byte(strings.Repeat("x", 70_000))}},
	}}))
	setAsideNext(t, c, "reason")
	if d := o.take(q.Queues[0]+".XQ", 1)[0]; len(d.Headers) != 4 || d.Headers[headerReason] != "reason" {
		t.Errorf("got %d headers, want 4", len(d.Headers))
	}
}

// Messages that wait for their turn to become dead letters are not copied once the connection is lost:
// RabbitMQ delivers them again, and each would be a dead letter twice.
func TestNoDeadLetterAfterLoss(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	q, bc := bindAndConsume(t, b)
	c := bc.(*consumer)
	const count = 10
	o.check(o.send(q.Exchange, q.PeerID+".1", publishings(make([]broker.Outgoing, count))...))
	c.deadLetters.length.sem <- struct{}{}
	results := make(chan error, count)
	for begun := 0; begun < count; {
		batch, err := c.Next(testContext(t), count)
		o.check(err)
		for _, d := range batch {
			go func() { results <- c.DeadLetter(testContext(t), d.Tag, "reason") }()
		}
		begun += len(batch)
	}
	eventually(t, "the moves", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.unacked.moving < count {
			return fmt.Errorf("%d moves have begun", c.unacked.moving)
		}
		return nil
	})
	c.live.cut()
	<-c.ended
	<-c.deadLetters.length.sem
	for range count {
		if <-results == nil {
			t.Error("a message became a dead letter although the connection is lost")
		}
	}
	if dead := asideIn(t, b, q.Queues[0]); len(dead) > 0 {
		t.Errorf("%d messages are dead letters, and will be again", len(dead))
	}
}

// A deleted dead-letter queue is declared again when it is needed.
func TestDeadLetterQueueDeleted(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	q, c := bindAndConsume(t, b)
	o.check(o.send(q.Exchange, q.PeerID+".1", publishings(make([]broker.Outgoing, 2))...))
	for range 2 {
		_, err := o.QueueDelete(q.Queues[0]+".XQ", false, false, false)
		o.check(err)
		setAsideNext(t, c, "reason")
		o.take(q.Queues[0]+".XQ", 1)
	}
}

// When the queue is deleted, its consumer ends with a reason. The next consumer
// declares the queue again with its bindings, and that is logged once.
func TestQueueDeleted(t *testing.T) {
	s := rabbittest.Get(t)
	log := new(logBuffer)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{Logger: log.logger()})
	q, c := bindAndConsume(t, b)
	waiting := make(chan error, 1)
	go func() {
		_, err := c.Next(testContext(t), 1)
		waiting <- err
	}()
	_, err := o.QueueDelete(q.Queues[0], false, false, false)
	o.check(err)
	if err := <-waiting; !errors.Is(err, errGone) {
		t.Errorf("got %v, want errGone", err)
	}
	if err := c.Confirm(1); !errors.Is(err, errGone) {
		t.Errorf("confirm: got %v, want errGone", err)
	}
	o.check(c.Close())
	for range 2 {
		c, err = b.Consume(testContext(t), q.Queues[0])
		o.check(err)
		o.check(o.send(q.Exchange, q.PeerID+".1", amqp.Publishing{Body: []byte("1")}))
		ds, err := c.Next(testContext(t), 10)
		if err != nil || len(ds) != 1 {
			t.Errorf("got %d messages, %v, want 1", len(ds), err)
		}
		o.check(c.Confirm(ds[0].Tag))
		o.check(c.Close())
	}
	if n := strings.Count(log.String(), "has vanished"); n != 1 {
		t.Errorf("the deleted queue is logged %d times, want once:\n%s", n, log)
	}
	// After Unbind, the queue is not declared again.
	o.check(b.Unbind(testContext(t), q))
	_, err = o.QueueDelete(q.Queues[0], false, false, false)
	o.check(err)
	var e *amqp.Error
	if _, err := b.Consume(testContext(t), q.Queues[0]); !errors.As(err, &e) || e.Code != amqp.NotFound {
		t.Errorf("got %v, want NOT_FOUND", err)
	}
}

// A single message is delivered without waiting for others; messages that have arrived are
// delivered together.
func TestBatches(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	q, c := bindAndConsume(t, b)
	o.check(o.send(q.Exchange, q.PeerID+".1", publishings(make([]broker.Outgoing, 100))...))
	eventually(t, "prefetching", func() error {
		inner := c.(*consumer)
		inner.mu.Lock()
		defer inner.mu.Unlock()
		if n := len(inner.unacked.held); n != 100 {
			return errors.New("not all messages are there")
		}
		return nil
	})
	for _, test := range []struct{ max, want int }{{1, 1}, {60, 60}, {60, 39}} {
		if ds, err := c.Next(testContext(t), test.max); err != nil || len(ds) != test.want {
			t.Errorf("got %d messages, %v, want %d", len(ds), err, test.want)
		}
	}
	if _, err := c.Next(context.Background(), 0); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
}

// A confirmation just before Close, in the pause after an acknowledgement, is valid.
func TestConfirmBeforeClose(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	q, c := bindAndConsume(t, b)
	o.check(o.send(q.Exchange, q.PeerID+".1", publishings(make([]broker.Outgoing, 10))...))
	for given := 0; given < 10; {
		ds, err := c.Next(testContext(t), 10)
		o.check(err)
		given += len(ds)
	}
	o.check(c.Confirm(1))
	inner := c.(*consumer)
	for acknowledged := false; !acknowledged; {
		inner.mu.Lock()
		acknowledged = len(inner.unacked.held) == 9
		inner.mu.Unlock()
	}
	o.check(c.Confirm(9))
	o.check(c.Close())
	if n := len(o.take(q.Queues[0], -1)); n != 1 {
		t.Errorf("%d messages are left, want 1", n)
	}
}

// If a queue cannot be consumed, for any reason, Consume returns the reason and a nil
// interface, not an interface that holds a nil pointer, which a caller would use as a
// consumer.
func TestConsumeFails(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	used, _ := bindAndConsume(t, openTest(t, s.URL(), Options{}))
	missing, silent := "missing"+suffix(), "silent"+suffix()
	b.setLockSilent(silent, true)
	fails := func(queue string, want error) {
		t.Helper()
		if c, err := b.Consume(testContext(t), queue); c != nil || !errors.Is(err, want) {
			t.Errorf("queue %.20q: got %#v, %v, want %v", queue, c, err, want)
		}
	}
	fails(strings.Repeat("x", maxName+1), ErrInvalid)
	fails(missing, broker.ErrNoQueue)
	fails(silent, broker.ErrNoQueue)
	fails(used.Queues[0], broker.ErrInUse)
	o.check(b.Close())
	fails(used.Queues[0], broker.ErrClosed)
}
