package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
)

// asideIn returns the dead letters of a queue.
func asideIn(t *testing.T, b *Broker, queue string) []broker.DeadLetter {
	t.Helper()
	var found []broker.DeadLetter
	for m, err := range b.List(testContext(t), queue) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, m)
	}
	return found
}

// A message that another program has rejected, as the reference's client does, is listed
// with RabbitMQ's information about it, and a message published directly to the
// dead-letter queue is listed too. Identical messages have a number in their IDs.
func TestDeadLettersOfOthers(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	q := testPeer()
	queue := q.Queues[0]
	if err := b.Bind(testContext(t), q); err != nil {
		t.Fatal(err)
	}
	before := time.Now().Truncate(time.Second)
	o.check(o.send(q.Exchange, q.PeerID+".1", amqp.Publishing{Type: "T", ContentType: "text/plain", Body: []byte("rejected")}))
	d, ok, err := o.Get(queue, false)
	if err != nil || !ok {
		t.Fatalf("no message: %v", err)
	}
	o.check(d.Reject(false))
	eventually(t, "the dead letter", func() error {
		if c, err := b.Info(testContext(t), queue); err != nil || c.DeadLetters != 1 {
			return fmt.Errorf("%+v, %v", c, err)
		}
		return nil
	})
	put := amqp.Publishing{Headers: amqp.Table{headerReason: int64(7), "x-death": "nonsense"}, Body: []byte("put there")}
	o.check(o.send("", queue+".XQ", put, put))
	found := asideIn(t, b, queue)
	if len(found) != 3 {
		t.Fatalf("the dead letters are %+v, want 3", found)
	}
	if m := found[0]; string(m.Body) != "rejected" || m.Type != "T" || m.Reason == "" || m.At.Before(before) || m.At.After(time.Now()) {
		t.Errorf("the rejected message is %+v", m)
	}
	if m := found[1]; string(m.Body) != "put there" || m.Reason != "" || !m.At.IsZero() || m.ID != found[2].ID || m.ID == found[0].ID {
		t.Errorf("the published messages are %+v and %+v", m, found[2])
	}
	if n, err := b.Drop(testContext(t), queue, []string{found[1].ID}); err != nil || n != 2 {
		t.Errorf("%d messages were dropped, %v, want the 2 identical ones", n, err)
	}
	if n, err := b.Retry(testContext(t), queue, []string{found[0].ID}); err != nil || n != 1 {
		t.Errorf("%d messages were retried, %v, want 1", n, err)
	}
	if d := o.take(queue, 1)[0]; string(d.Body) != "rejected" || len(d.Headers) != 0 || d.Type != "T" || d.DeliveryMode != amqp.Persistent {
		t.Errorf("the retried message is %+v", d)
	}
}

// A retried message has all properties that its sender has set, and nothing that was
// added to the dead letter.
func TestRetryProperties(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	q, c := bindAndConsume(t, b)
	headers := amqp.Table{"a": "b", "x-own": int64(5), "list": []any{"x", amqp.Table{"y": true}}}
	m := amqp.Publishing{
		Headers: maps.Clone(headers), ContentType: "text/plain", ContentEncoding: "utf-8", Priority: 3, CorrelationId: "c",
		ReplyTo: "r", MessageId: "m", Timestamp: time.Unix(1e9, 0), Type: "T", AppId: "app", Body: []byte("body"),
	}
	o.check(o.send(q.Exchange, q.PeerID+".1", m))
	setAsideNext(t, c, "reason")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Retry(testContext(t), q.Queues[0], []string{asideIn(t, b, q.Queues[0])[0].ID}); err != nil || n != 1 {
		t.Fatalf("%d messages were retried, %v, want 1", n, err)
	}
	d := o.take(q.Queues[0], 1)[0]
	want := amqp.Delivery{
		Headers: headers, ContentType: "text/plain", ContentEncoding: "utf-8", DeliveryMode: amqp.Persistent, Priority: 3, CorrelationId: "c",
		ReplyTo: "r", MessageId: "m", Timestamp: d.Timestamp, Type: "T", AppId: "app", Body: []byte("body"), RoutingKey: q.Queues[0],
	}
	d.Acknowledger, d.DeliveryTag, d.MessageCount = nil, 0, 0
	if !reflect.DeepEqual(d, want) || !d.Timestamp.Equal(m.Timestamp) {
		t.Errorf("got  %+v\nwant %+v", d, want)
	}
}

// RabbitMQ may be lost at any moment of a retry: then messages may be in both queues, but
// each is in at least one.
func TestRetryInterrupted(t *testing.T) {
	s := rabbittest.Get(t)
	const count = 1000
	for _, moment := range []int{0, 1, count / 2} {
		o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
		q := testPeer()
		queue := q.Queues[0]
		if err := b.Bind(testContext(t), q); err != nil {
			t.Fatal(err)
		}
		var letters []amqp.Publishing
		for n := range count {
			letters = append(letters, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: fmt.Append(nil, n)})
		}
		o.check(o.send("", queue+".XQ", letters...))
		var ids []string
		for _, m := range asideIn(t, b, queue) {
			ids = append(ids, m.ID)
		}
		retried := make(chan error, 1)
		go func() {
			n, err := b.Retry(testContext(t), queue, ids)
			if err == nil && n < count {
				err = fmt.Errorf("only %d were retried", n)
			}
			retried <- err
		}()
		eventually(t, "the moment to interrupt", func() error {
			q, err := newTestClient(t, s).QueueDeclarePassive(queue, true, false, false, false, nil)
			if err == nil && q.Messages < moment {
				err = fmt.Errorf("%d messages are retried", q.Messages)
			}
			return err
		})
		for _, c := range []*connection{b.publishing, b.consuming} {
			if l, err := c.get(testContext(t)); err == nil {
				l.Close()
			}
		}
		if err := <-retried; err != nil {
			t.Logf("interrupted after %d messages: %v", moment, err)
		}
		at := make(map[string]int)
		eventually(t, "the returned messages", func() error {
			for _, d := range append(o.take(queue, -1), o.take(queue+".XQ", -1)...) {
				at[string(d.Body)]++
			}
			if len(at) < count {
				return fmt.Errorf("%d messages of %d are there", len(at), count)
			}
			return nil
		})
		for body, n := range at {
			if n > 2 {
				t.Errorf("message %s is in the queues %d times", body, n)
			}
		}
	}
}

// If the queue does not exist, no message leaves the dead-letter queue.
func TestRetryNowhere(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	q := testPeer()
	if err := b.Bind(testContext(t), q); err != nil {
		t.Fatal(err)
	}
	o.check(o.send("", q.Queues[0]+".XQ", amqp.Publishing{Body: []byte("1")}))
	_, err := o.QueueDelete(q.Queues[0], false, false, false)
	o.check(err)
	id := asideIn(t, b, q.Queues[0])[0].ID
	if n, err := b.Retry(testContext(t), q.Queues[0], []string{id}); n != 0 || !errors.Is(err, broker.ErrNoQueue) {
		t.Errorf("%d messages were retried, %v, want ErrNoQueue", n, err)
	}
	if found := asideIn(t, b, q.Queues[0]); len(found) != 1 || found[0].ID != id {
		t.Errorf("the dead letters are %+v", found)
	}
}

// During a List, the messages are not available for another List. They are available again
// as soon as the first has ended, even if it ended early or was interrupted.
func TestListHides(t *testing.T) {
	s := rabbittest.Get(t)
	o, b, other := newTestClient(t, s), openTest(t, s.URL(), Options{}), openTest(t, s.URL(), Options{})
	q := testPeer()
	queue := q.Queues[0]
	if err := b.Bind(testContext(t), q); err != nil {
		t.Fatal(err)
	}
	o.check(o.send("", queue+".XQ", publishings(make([]broker.Outgoing, 3))...))
	for range b.List(testContext(t), queue) {
		if hidden := asideIn(t, other, queue); len(hidden) != 0 {
			t.Errorf("another broker lists %+v, want nothing", hidden)
		}
		break
	}
	if found := asideIn(t, other, queue); len(found) != 3 {
		t.Errorf("another broker lists %d messages, want 3", len(found))
	}
	ctx, interrupt := context.WithCancel(testContext(t))
	defer interrupt()
	for m, err := range b.List(ctx, queue) {
		interrupt()
		if m.ID == "" && !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted: got %v", err)
		}
	}
	ctx, interrupt = context.WithCancel(testContext(t))
	defer interrupt()
	for range b.List(ctx, queue) {
		interrupt() // so that the messages can not be returned gracefully
		break
	}
	eventually(t, "the returned messages", func() error {
		if found := asideIn(t, other, queue); len(found) != 3 {
			return fmt.Errorf("another broker lists %d messages, want 3", len(found))
		}
		return nil
	})
}

// An ID depends on the whole content of a message, and on nothing else: not on the time
// zone, and not on the number of deliveries.
func TestIDOf(t *testing.T) {
	t.Parallel()
	at := time.Unix(1e9, 0)
	base := amqp.Delivery{Type: "a", ContentType: "b", Body: []byte("c"), Headers: amqp.Table{"t": at, "l": []any{"x", amqp.Table{"y": int32(1)}}}}
	same, different := base, []amqp.Delivery{}
	same.DeliveryTag, same.Redelivered, same.MessageCount, same.ConsumerTag = 7, true, 9, "me"
	same.Headers = amqp.Table{"t": at.In(time.FixedZone("there", 3600)), "l": []any{"x", amqp.Table{"y": int32(1)}}, "x-delivery-count": int64(4)}
	if idOf(same) != idOf(base) {
		t.Error("the same message has two IDs")
	}
	for _, change := range []func(*amqp.Delivery){
		func(d *amqp.Delivery) { d.Type, d.ContentType = "", "ab" },
		func(d *amqp.Delivery) { d.Type, d.ContentType = "b", "a" },
		func(d *amqp.Delivery) { d.Body = []byte("C") },
		func(d *amqp.Delivery) { d.MessageId = "m" },
		func(d *amqp.Delivery) { d.Priority = 1 },
		func(d *amqp.Delivery) { d.Headers = nil },
		func(d *amqp.Delivery) { d.Headers["t"] = at.Add(time.Second) },
		func(d *amqp.Delivery) { d.Headers["t"] = at.Unix() },
		func(d *amqp.Delivery) { d.Headers["l"] = []any{"x", amqp.Table{"y": int64(1)}} },
		func(d *amqp.Delivery) { d.Headers["l"] = []any{"x", amqp.Table{"y": int32(2)}} },
		func(d *amqp.Delivery) { d.Headers["more"] = nil },
		func(d *amqp.Delivery) { d.Headers["else"] = nil },
	} {
		d := base
		d.Headers = maps.Clone(base.Headers)
		change(&d)
		different = append(different, d)
	}
	ids := map[string]bool{idOf(base): true}
	for _, d := range different {
		if ids[idOf(d)] {
			t.Errorf("%+v has the ID of another message", d)
		}
		ids[idOf(d)] = true
	}
}

// Each of the queues that may have messages of a peer is counted also if it is the only one
// that exists: a queue may have been deleted while its dead letters still wait for the
// operator. Only if there is none does Info report that.
func TestInfoOfOneQueue(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{DeadLetterSuffix: ".aside"})
	queue := "only" + suffix()
	for name, want := range map[string]broker.QueueInfo{
		queue:                           {Waiting: 1},
		b.deadLetterQueue(queue):        {DeadLetters: 1},
		referenceDeadLetterQueue(queue): {DeadLetters: 1},
	} {
		if info, err := b.Info(testContext(t), queue); !errors.Is(err, broker.ErrNoQueue) {
			t.Errorf("without a queue: got %+v, %v, want ErrNoQueue", info, err)
		}
		_, err := o.QueueDeclare(name, true, false, false, false, nil)
		o.check(err)
		o.check(o.send("", name, amqp.Publishing{Body: []byte("1")}))
		if info, err := b.Info(testContext(t), queue); err != nil || info != want {
			t.Errorf("only %s exists: got %+v, %v, want %+v", name, info, err, want)
		}
		_, err = o.QueueDelete(name, false, false, false)
		o.check(err)
	}
}

// If RabbitMQ refuses to let dead letters be consumed, because another program consumes them
// exclusively, List reports RabbitMQ's reason: it neither waits for messages that cannot come,
// nor ends as if there were none.
func TestListRefused(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	q := testPeer()
	name := referenceDeadLetterQueue(q.Queues[0])
	// Quorum queues have no exclusive consumers.
	_, err := o.QueueDeclare(name, true, false, false, false, amqp.Table{"x-queue-type": "classic"})
	o.check(err)
	o.check(b.Bind(testContext(t), q))
	o.check(o.Qos(1, 0, false)) // so that a message stays in the queue
	_, err = o.Consume(name, "", false, true, false, false, nil)
	o.check(err)
	o.check(o.send("", name, publishings(make([]broker.Outgoing, 2))...))
	var reported error
	for m, err := range b.List(testContext(t), q.Queues[0]) {
		if reported = err; err == nil {
			t.Errorf("List returns the message %+v", m)
		}
	}
	if !inExclusiveUse(reported) {
		t.Errorf("got %v, want RabbitMQ's refusal", reported)
	}
}

// A quorum queue whose leader does not answer in time is not taken for an empty one, although RabbitMQ then
// counts no messages: all dead letters are counted, listed and dropped, and there is no warning
// that some are missing.
func TestSlowLeader(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{QueueType: Quorum})
	q, c := bindAndConsume(t, b)
	queue := q.Queues[0]
	const count = 3
	setAsideMessages(t, o, q, c, count)
	ids := make([]string, 0, count)
	for _, m := range asideIn(t, b, queue) {
		ids = append(ids, m.ID)
	}
	expect(t, c, count)
	whileLeaderIsSlow(t, o, s, queue+".XQ", func() {
		var wg sync.WaitGroup
		wg.Go(func() {
			if info, err := b.Info(testContext(t), queue); err != nil || info.DeadLetters != count {
				t.Errorf("%+v, %v, want %d dead letters", info, err, count)
			}
		})
		checkLengths(t, c)
		checkLengths(t, c)
		wg.Wait()
	})
	if w := b.Warnings(); len(w) > 0 {
		t.Errorf("warnings %q", w)
	}
	whileLeaderIsSlow(t, o, s, queue+".XQ", func() {
		if n, err := b.Drop(testContext(t), queue, ids); n != count || err != nil {
			t.Errorf("%d dropped, %v, want %d", n, err, count)
		}
	})
	if info, err := b.Info(testContext(t), queue); err != nil || info.DeadLetters != 0 {
		t.Errorf("%+v, %v, want no dead letters", info, err)
	}
}

// whileLeaderIsSlow calls do while the leader of a quorum queue is suspended, which is for a second.
func whileLeaderIsSlow(t *testing.T, o *testClient, s *rabbittest.Server, queue string, do func()) {
	t.Helper()
	const suspend = `{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"%s">>)), P = amqqueue:get_pid(Q), sys:suspend(P), timer:sleep(1000), sys:resume(P).`
	done := make(chan error, 1)
	go func() { done <- s.Control("eval", fmt.Sprintf(suspend, queue)) }()
	eventually(t, "the suspension", func() error {
		q, err := o.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err == nil && q.Messages > 0 {
			err = fmt.Errorf("%d messages are counted", q.Messages)
		}
		return err
	})
	do()
	o.check(<-done)
}
