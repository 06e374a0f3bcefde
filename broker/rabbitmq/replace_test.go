package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
)

// limited creates a quorum queue, and its dead-letter queue, with a delivery limit, and with
// messages "0" to "n-1" in one of them.
func limited(t *testing.T, o *testClient, limit, n int, aside bool) (queue string) {
	t.Helper()
	queue = "limited" + suffix()
	for name, args := range map[string]amqp.Table{
		queue:                           {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": referenceDeadLetterQueue(queue)},
		referenceDeadLetterQueue(queue): {},
	} {
		args["x-queue-type"], args["x-delivery-limit"] = "quorum", limit
		_, err := o.QueueDeclare(name, true, false, false, false, args)
		o.check(err)
	}
	to := queue
	if aside {
		to = referenceDeadLetterQueue(queue)
	}
	var messages []amqp.Publishing
	for i := range n {
		messages = append(messages, amqp.Publishing{
			Headers: amqp.Table{"x-death": []any{amqp.Table{"reason": "rejected", "time": time.Unix(1e9, 0)}}, "own": "header"},
			Type:    "T", CorrelationId: "c", Timestamp: time.Unix(1e9, 0), DeliveryMode: amqp.Persistent, Body: fmt.Append(nil, i),
		})
	}
	o.check(o.send("", to, messages...))
	return queue
}

// Listing dead letters changes nothing, no matter how often: none is lost, and each keeps
// its position, its ID and its content.
func TestRepeatedList(t *testing.T) {
	s := rabbittest.Get(t)
	o := newTestClient(t, s)
	b := openTest(t, s.URL(), Options{})
	const count = browseStep + 10
	queue := limited(t, o, defaultLimit, count, true)
	var first []broker.DeadLetter
	for round := range 22 { // more often than a message may be delivered
		var seen []broker.DeadLetter
		for m, err := range b.List(testContext(t), queue) {
			o.check(err)
			if seen = append(seen, m); round%3 == 1 && len(seen) == 5 {
				break // ends early
			}
		}
		if round == 0 {
			first = seen
		}
		want := first
		if round%3 == 1 {
			want = first[:5]
		}
		if len(seen) != len(want) || len(first) != count || !slices.EqualFunc(seen, want, func(a, b broker.DeadLetter) bool {
			return a.ID == b.ID && a.Reason == b.Reason && a.At.Equal(b.At) && string(a.Body) == string(b.Body)
		}) {
			t.Fatalf("list %d has %d messages, %v, want %v", round, len(seen), seen[:min(len(seen), 8)], want[:min(len(want), 8)])
		}
	}
	for i, d := range o.take(referenceDeadLetterQueue(queue), -1) {
		if string(d.Body) != fmt.Sprint(i) || d.Type != "T" || d.CorrelationId != "c" || d.Timestamp.Unix() != 1e9 ||
			d.Headers["own"] != "header" || d.Headers["x-death"] == nil || d.Headers[headerRoutingKey] != nil {
			t.Fatalf("message %d is now %+v", i, d)
		}
	}
}

// Drop and Retry affect exactly the given messages, also if they were listed often
// before.
func TestDropAfterRepeatedList(t *testing.T) {
	s := rabbittest.Get(t)
	o := newTestClient(t, s)
	b := openTest(t, s.URL(), Options{})
	queue := limited(t, o, defaultLimit, 10, true)
	var ids []string
	for range replaceAt + 1 {
		ids = nil
		for m, err := range b.List(testContext(t), queue) {
			o.check(err)
			ids = append(ids, m.ID)
		}
	}
	for range 2 * replaceAt { // Drop without a match lists, too
		if n, _ := b.Drop(testContext(t), queue, []string{"nothing"}); n != 0 {
			t.Fatalf("%d messages were dropped, want none", n)
		}
	}
	if n, err := b.Drop(testContext(t), queue, ids[:3]); n != 3 || err != nil {
		t.Errorf("%d messages were dropped, %v, want 3", n, err)
	}
	if n, err := b.Retry(testContext(t), queue, ids[8:]); n != 2 || err != nil {
		t.Errorf("%d messages were retried, %v, want 2", n, err)
	}
	if got := bodies(o.take(referenceDeadLetterQueue(queue), -1)); !slices.Equal(got, []string{"3", "4", "5", "6", "7"}) {
		t.Errorf("the dead letters are %q", got)
	}
	if got := bodies(o.take(queue, -1)); !slices.Equal(got, []string{"8", "9"}) {
		t.Errorf("%q are in the queue", got)
	}
}

func bodies(ds []amqp.Delivery) (list []string) {
	for _, d := range ds {
		list = append(list, string(d.Body))
	}
	return list
}

// Messages that are delivered and returned any number of times, as when a peer closes each
// connection immediately, are not dropped by RabbitMQ; and one that becomes a dead letter
// has its origin.
func TestDeliveredOften(t *testing.T) {
	s := rabbittest.Get(t)
	o := newTestClient(t, s)
	b := openTest(t, s.URL(), Options{})
	const count = 20
	queue := limited(t, o, defaultLimit, count, false)
	o.check(o.ExchangeDeclare("outbox", "fanout", true, false, false, false, nil))
	o.check(o.QueueBind(queue, "", "outbox", false, nil))
	o.check(o.send("outbox", "key", amqp.Publishing{Type: "T", Body: []byte("the last")}))
	for range 30 {
		c, err := b.Consume(testContext(t), queue)
		o.check(err)
		nextAll(t, c, count+1)
		o.check(c.Close())
	}
	if n := len(o.take(referenceDeadLetterQueue(queue), -1)); n > 0 {
		t.Errorf("RabbitMQ has dead-lettered %d messages", n)
	}
	c, err := b.Consume(testContext(t), queue)
	o.check(err)
	var got []string
	for len(got) <= count {
		ds, err := c.Next(testContext(t), count+1)
		o.check(err)
		for _, d := range ds {
			if got = append(got, string(d.Body)); string(d.Body) == "the last" {
				o.check(c.DeadLetter(testContext(t), d.Tag, "reason"))
			}
		}
	}
	slices.Sort(got)
	if len(slices.Compact(got)) != count+1 {
		t.Errorf("%q are in the queue", got)
	}
	if ds := o.take(referenceDeadLetterQueue(queue), 1); ds[0].Headers[headerExchange] != "outbox" || ds[0].Headers[headerRoutingKey] != "key" {
		t.Errorf("the headers of the dead letter are %v, want its origin", ds[0].Headers)
	}
}

// While RabbitMQ accepts no messages, messages that were delivered often cannot be replaced. A
// peer that ends its connections repeatedly does not bring them nearer to the limit then: the
// queue is not consumed again before RabbitMQ accepts messages.
func TestDeliveredOftenDuringAlarm(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	const count = 10
	queue := limited(t, o, defaultLimit, count, false)
	inbox := "accounts_in" + suffix()
	o.inbox(inbox)
	p := openStream(t, b)
	o.check(p.Publish(testContext(t), incoming(inbox, "", "1")))
	if _, err := p.wait(1); err != nil {
		t.Fatal(err)
	}
	o.check(s.Control("set_vm_memory_high_watermark", "0.0001"))
	clear := sync.OnceValue(func() error { return s.Control("set_vm_memory_high_watermark", "0.4") })
	defer func() { _ = clear() }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go p.Publish(ctx, incoming(inbox, "", "2")) // makes RabbitMQ report that it is blocked
	eventually(t, "noticing the alarm", func() error {
		if b.publishing.blockedError() == nil {
			return errors.New("no alarm")
		}
		return nil
	})
	refused := 0
	for range 40 {
		c, err := b.Consume(testContext(t), queue)
		if errors.Is(err, errBlocked) {
			refused++
			continue
		}
		o.check(err)
		nextAll(t, c, count)
		o.check(c.Close())
	}
	if n := len(o.take(referenceDeadLetterQueue(queue), -1)); n > 0 || refused == 0 {
		t.Errorf("RabbitMQ has dead-lettered %d messages, want none; %d consumers were refused, want some", n, refused)
	}
	o.check(clear())
	var c broker.Consumer
	eventually(t, "the end of the alarm", func() (err error) {
		c, err = b.Consume(testContext(t), queue)
		return err
	})
	nextAll(t, c, count)
	o.check(c.Close())
}

// While RabbitMQ accepts no messages, dead letters in a queue with a delivery limit are not looked at,
// whoever looks and however often, since they could not be replaced by copies: none is lost, also of
// those that RabbitMQ has moved there because of the limit, and that would be dropped at once.
func TestListDuringAlarm(t *testing.T) {
	s := rabbittest.Get(t)
	o := newTestClient(t, s)
	const count = 10
	queue := limited(t, o, defaultLimit, count, false)
	for range defaultLimit + 2 { // RabbitMQ moves them to the dead-letter queue
		ch, err := o.conn.Channel()
		o.check(err)
		for range count {
			_, _, err := ch.Get(queue, false)
			o.check(err)
		}
		o.check(ch.Close())
	}
	aside := referenceDeadLetterQueue(queue)
	eventually(t, "moving to the dead-letter queue", func() error {
		if n, err := o.conn.Channel(); err != nil {
			return err
		} else if q, err := n.QueueDeclarePassive(aside, true, false, false, false, nil); err != nil || q.Messages != count {
			return fmt.Errorf("%d messages, %w", q.Messages, err)
		}
		return nil
	})
	o.check(s.Control("set_vm_memory_high_watermark", "0.0001"))
	clear := sync.OnceValue(func() error { return s.Control("set_vm_memory_high_watermark", "0.4") })
	defer func() { _ = clear() }()
	watch := openTest(t, s.URL(), Options{})
	eventually(t, "the alarm", func() error {
		if err := watch.checkPublishing(testContext(t)); !errors.Is(err, errBlocked) {
			return fmt.Errorf("got %v, want %v", err, errBlocked)
		}
		return nil
	})
	for n := range 4 {
		b := openTest(t, s.URL(), Options{}) // as each "queue show"
		for m, err := range b.List(testContext(t), queue) {
			if !errors.Is(err, errBlocked) {
				t.Fatalf("look %d: got %+v, %v, want %v", n, m, err, errBlocked)
			}
		}
		if _, err := b.Retry(testContext(t), queue, []string{"1"}); !errors.Is(err, errBlocked) {
			t.Fatalf("retry %d: got %v, want %v", n, err, errBlocked)
		}
	}
	o.check(clear())
	if n := len(o.take(aside, -1)); n != count {
		t.Errorf("%d of %d messages are left", n, count)
	}
}

// nextAll waits until a consumer has delivered n messages.
func nextAll(t *testing.T, c broker.Consumer, n int) {
	t.Helper()
	for got := 0; got < n; {
		ds, err := c.Next(testContext(t), n)
		if err != nil {
			t.Fatal(err)
		}
		got += len(ds)
	}
}

// A message with a high delivery count is replaced by a copy up to the greatest size of headers
// that can be published, and stays as it is beyond that.
func TestReplaceLargeHeaders(t *testing.T) {
	d := amqp.Delivery{Headers: amqp.Table{"x-delivery-count": int64(replaceAt), "own": ""}}
	room := maxHeaders - sizeOf(d.Headers)
	for size, want := range map[int]bool{room: true, room + 1: false} {
		d.Headers["own"] = strings.Repeat("x", size)
		if got := mustReplace(d); got != want {
			t.Errorf("headers with %d bytes: %v, want %v", sizeOf(d.Headers), got, want)
		}
	}
}
