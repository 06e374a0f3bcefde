package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/internal/wait"
)

// stream is a Publisher and its last report.
type stream struct {
	broker.Publisher
	mu   sync.Mutex
	n    uint64
	err  error
	news wait.Signal
}

func openStream(t testing.TB, b *Broker) *stream {
	t.Helper()
	s := &stream{news: wait.NewSignal()}
	confirmed := func(n uint64, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.n, s.err = n, err
		s.news.Notify()
	}
	var err error
	s.Publisher, err = b.Publish(testContext(t), confirmed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Publisher.Close() })
	return s
}

// wait waits until n messages are confirmed, or the stream has ended, and returns the last
// report.
func (s *stream) wait(n uint64) (uint64, error) {
	timeout := time.After(testLimit)
	for {
		s.mu.Lock()
		count, err := s.n, s.err
		s.mu.Unlock()
		if err != nil || count >= n {
			return count, err
		}
		select {
		case <-s.news:
		case <-timeout:
			return count, fmt.Errorf("%d of %d messages are confirmed within %v", count, n, testLimit)
		}
	}
}

func incoming(exchange, key, body string) *broker.Incoming {
	return &broker.Incoming{Peer: "00000a01", Exchange: exchange, RoutingKey: key, Type: "AccountUpdate", ContentType: "application/json", Body: []byte(body)}
}

// The application gets the same properties and headers, with their AMQP types, as from
// the reference, and nothing else.
func TestPublishedProperties(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	inbox := "creditors_in" + suffix()
	o.inbox(inbox)
	p := openStream(t, b)
	m := incoming(inbox, "1.0.1", "{}")
	m.Headers = []broker.Header{{Name: "message-type", Value: "AccountUpdate"}, {Name: "debtor-id", Value: int64(5)}, {Name: "ca-trade", Value: true}}
	o.check(p.Publish(testContext(t), m))
	// Headers of earlier messages are not kept.
	o.check(p.Publish(testContext(t), incoming(inbox, "1.0.1", "{}")))
	got := o.take(inbox, 2)
	want := amqp.Delivery{
		Headers:     amqp.Table{"message-type": "AccountUpdate", "debtor-id": int64(5), "ca-trade": true},
		ContentType: "application/json", DeliveryMode: 2, Type: "AccountUpdate", AppId: "swpt_stomp",
		Exchange: inbox, RoutingKey: "1.0.1", Body: []byte("{}"),
	}
	for _, d := range got {
		d.Acknowledger, d.DeliveryTag, d.MessageCount = nil, 0, 0
		if !reflect.DeepEqual(d, want) {
			t.Errorf("got  %+v\nwant %+v", d, want)
		}
		want.Headers = nil
	}
}

// A message that can not be routed ends the stream exactly there, for any number of
// unconfirmed messages before and after it, even if others are identical.
func TestReturned(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	inbox := "accounts_in" + suffix()
	o.check(o.ExchangeDeclare(inbox, "topic", true, false, false, false, nil))
	_, err := o.QueueDeclare(inbox, true, false, false, false, nil)
	o.check(err)
	o.check(o.QueueBind(inbox, "in.#", inbox, false, nil))
	for _, at := range []int{1, 2, 300} {
		p := openStream(t, b)
		for n := 1; n <= 500; n++ {
			m := incoming(inbox, "in.1", "same")
			if n == at || n == at+7 {
				m.RoutingKey = "out.1"
			}
			if p.Publish(testContext(t), m) != nil {
				break
			}
		}
		n, err := p.wait(501)
		if n != uint64(at-1) || !errors.Is(err, broker.ErrUnroutable) {
			t.Errorf("message %d can not be routed: %d confirmed, %v", at, n, err)
		}
		trouble := fmt.Sprint(b.health.refusedFor(0, 1))
		for _, part := range []string{"peer 00000a01", "exchange " + inbox, `routing key "out.1"`, "bind a queue"} {
			if !strings.Contains(trouble, part) {
				t.Errorf("the only peer's message was refused, and Health says %q, want it to name %s", trouble, part)
			}
		}
		if err := b.health.refusedFor(0, 2); err != nil {
			t.Errorf("one peer's message was refused, and Health reports that all are: %v", err)
		}
		o.check(p.Close())
		o.take(inbox, at-1)
	}
}

// A stream that ends during Publish does not affect the connection, which other streams
// share.
func TestEndWhilePublishing(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	inbox := "accounts_in" + suffix()
	o.inbox(inbox)
	other := openStream(t, b)
	good, bad := incoming(inbox, "", "1"), incoming("amq.direct", "nobody", "1")
	var publishing sync.WaitGroup
	for range 50 {
		p := openStream(t, b)
		o.check(p.Publish(testContext(t), bad))
		for range 4 {
			publishing.Go(func() {
				for p.Publish(testContext(t), good) == nil {
				}
			})
		}
		publishing.Wait()
		o.check(p.Close())
	}
	o.check(other.Publish(testContext(t), incoming(inbox, "", "2")))
	if n, err := other.wait(1); n != 1 || err != nil {
		t.Errorf("%d confirmed, %v", n, err)
	}
}

// Publishing to an exchange that does not exist ends the stream, and no other. Health
// reports it until RabbitMQ confirms a message again.
func TestNoExchange(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	inbox := "accounts_in" + suffix()
	o.inbox(inbox)
	good, bad := openStream(t, b), openStream(t, b)
	o.check(good.Publish(testContext(t), incoming(inbox, "", "1")))
	if n, err := good.wait(1); n != 1 || err != nil {
		t.Errorf("%d confirmed, %v", n, err)
	}
	o.check(bad.Publish(testContext(t), incoming("nowhere", "", "1")))
	if n, err := bad.wait(1); n != 0 || !errors.Is(err, broker.ErrUnroutable) {
		t.Errorf("%d confirmed, %v, want ErrUnroutable", n, err)
	}
	if err := b.health.refusedFor(0, 2); !errors.Is(err, broker.ErrUnroutable) {
		t.Errorf("trouble is %v, want ErrUnroutable", err)
	}
	o.check(good.Publish(testContext(t), incoming(inbox, "", "2")))
	if n, err := good.wait(2); n != 2 || err != nil {
		t.Errorf("%d confirmed, %v", n, err)
	}
	if err := b.health.refusedFor(0, 2); err != nil {
		t.Error(err)
	}
}

// A message that RabbitMQ refuses, for example because a queue is full, is not confirmed,
// and no later one is.
func TestNegativelyConfirmed(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	inbox := "accounts_in" + suffix()
	o.check(o.ExchangeDeclare(inbox, "fanout", true, false, false, false, nil))
	_, err := o.QueueDeclare(inbox, true, false, false, false, amqp.Table{"x-queue-type": "classic", "x-max-length": 5, "x-overflow": "reject-publish"}) // a quorum queue accepts more messages for a while
	o.check(err)
	o.check(o.QueueBind(inbox, "", inbox, false, nil))
	p := openStream(t, b)
	for n := range 20 {
		if p.Publish(testContext(t), incoming(inbox, "", fmt.Sprint(n+1))) != nil {
			break
		}
	}
	n, err := p.wait(20)
	if !errors.Is(err, errNotConfirmed) || n == 0 || n >= 20 {
		t.Errorf("%d confirmed, %v, want ErrNotConfirmed", n, err)
	}
	for i, d := range o.take(inbox, int(n)) {
		if string(d.Body) != fmt.Sprint(i+1) {
			t.Errorf("message %d is %s", i+1, d.Body)
		}
	}
}

// A message that RabbitMQ does not confirm in time ends the stream.
func TestConfirmTimeout(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{ConfirmTimeout: 200 * time.Millisecond})
	inbox := "accounts_in" + suffix()
	o.inbox(inbox)
	p := openStream(t, b)
	o.check(s.Pause())
	defer s.Resume()
	o.check(p.Publish(testContext(t), incoming(inbox, "", "1")))
	start := time.Now()
	if n, err := p.wait(1); n != 0 || !errors.Is(err, errNotConfirmed) {
		t.Errorf("%d confirmed, %v, want ErrNotConfirmed", n, err)
	}
	if took := time.Since(start); took < 150*time.Millisecond || took > testLimit/2 {
		t.Errorf("took %v, want 200 ms", took)
	}
	if err := p.Publish(context.Background(), incoming(inbox, "", "2")); !errors.Is(err, errNotConfirmed) {
		t.Errorf("got %v, want ErrNotConfirmed", err)
	}
}

// Messages that Publish refuses because RabbitMQ blocks the connection take no room of those that
// are not confirmed: otherwise Publish would wait for ever once there were enough of them.
func TestBlockedTakesNoRoom(t *testing.T) {
	const most = 2
	p := &publisher{
		broker:   &Broker{opts: Options{ConfirmTimeout: time.Millisecond}},
		live:     &liveConn{block: newBlockage()},
		inFlight: make(chan struct{}, most),
	}
	p.live.setBlocked("memory")
	for n := range most {
		if err := p.Publish(testContext(t), &broker.Incoming{Exchange: "exchange", RoutingKey: "key"}); !errors.Is(err, errBlocked) || len(p.inFlight) != 0 {
			t.Errorf("message %d: got %v, want errBlocked; %d messages are not confirmed", n, err, len(p.inFlight))
		}
	}
}
