package rabbitmq

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
)

// onChannel calls do with a new channel, which RabbitMQ may close, and returns its error.
func (o *testClient) onChannel(do func(*amqp.Channel) error) error {
	o.Helper()
	ch, err := o.conn.Channel()
	o.check(err)
	defer ch.Close()
	return do(ch)
}

// declaredAs reports whether a queue exists with exactly these arguments: RabbitMQ refuses
// to declare it again with other arguments.
func (o *testClient) declaredAs(queue string, args amqp.Table) bool {
	o.Helper()
	return o.onChannel(func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(queue, true, false, false, false, args)
		return err
	}) == nil
}

// Bind declares the same objects as the reference's configure-queue, with all arguments,
// for every type of owner and peer (section "RabbitMQ objects of the reference").
func TestObjects(t *testing.T) {
	s := rabbittest.Get(t)
	for _, test := range []struct {
		q          broker.PeerBinding
		kind       string
		args       amqp.Table
		routingKey string
	}{
		{broker.PeerBinding{Prefix: "aa", Exchange: "to_creditors", BindingKey: "00.00.01.#"}, "topic", nil, "00.00.01.02.03.04.05.06"},
		{broker.PeerBinding{Prefix: "aa", Exchange: "to_debtors", BindingKey: "12.34.ab.cd.00.#"}, "topic", nil, "12.34.ab.cd.00.00.00.01"},
		{broker.PeerBinding{Prefix: "ca", Exchange: "creditors_out", BindingKey: "12.34.ab.cd.#"}, "topic",
			amqp.Table{"alternate-exchange": "ca.loopback_filter"}, "12.34.ab.cd.00.00.00.01"},
		{broker.PeerBinding{Prefix: "da", Exchange: "debtors_out", Fanout: true}, "fanout", nil, ""},
	} {
		t.Run(test.q.Exchange, func(t *testing.T) {
			o := newTestClient(t, s)
			q := test.q
			q.PeerID = "5678" + suffix()
			queue := "peer." + q.PeerID + ".0"
			q.Queues = []string{queue}
			b := openTest(t, s.URL(), Options{})
			if err := b.Bind(testContext(t), q); err != nil {
				t.Fatal(err)
			}
			for _, x := range []struct {
				name, kind string
				args       amqp.Table
			}{{q.Exchange, test.kind, test.args}, {q.Prefix + ".x." + q.PeerID, "x-random", nil}} {
				for _, durable := range []bool{true, false} {
					err := o.onChannel(func(ch *amqp.Channel) error {
						return ch.ExchangeDeclare(x.name, x.kind, durable, false, false, false, x.args)
					})
					if (err == nil) != durable {
						t.Errorf("exchange %s, durable %v: %v", x.name, durable, err)
					}
				}
			}
			args := amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue + ".XQ"}
			if !o.declaredAs(queue, args) || !o.declaredAs(queue+".XQ", nil) || o.declaredAs(queue, nil) {
				t.Error("the queues have other arguments")
			}
			o.check(o.send(q.Exchange, test.routingKey, amqp.Publishing{Body: []byte("rejected")}))
			d, ok, err := o.Get(queue, false)
			if err != nil || !ok {
				t.Fatalf("the message is not in the queue: %v", err)
			}
			o.check(d.Reject(false))
			if d := o.take(queue+".XQ", 1)[0]; string(d.Body) != "rejected" {
				t.Errorf("the dead letter is %q, want \"rejected\"", d.Body)
			}
			if test.args == nil {
				return
			}
			if err := o.send(q.Exchange, "ff.ff", amqp.Publishing{}); !errors.Is(err, broker.ErrUnroutable) {
				t.Errorf("got %v, want ErrUnroutable", err)
			}
			loop, err := o.QueueDeclare("loop", false, true, true, false, nil)
			o.check(err)
			o.check(o.QueueBind(loop.Name, "", "ca.loopback_filter", false, nil))
			o.check(o.send(q.Exchange, "ff.ff", amqp.Publishing{Body: []byte("loop")}))
			o.take(loop.Name, 1)
		})
	}
}

// The messages of a peer with several queues are distributed over them. A removed queue
// gets no more messages, and keeps its messages.
func TestSeveralQueues(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	q := testPeer()
	first, second := q.Queues[0], "peer."+q.PeerID+".1"
	q.Queues = []string{first, second}
	o.check(b.Bind(testContext(t), q))
	messages := publishings(make([]broker.Outgoing, 100))
	o.check(o.send(q.Exchange, q.PeerID+".1", messages...))
	one, two := len(o.take(first, -1)), len(o.take(second, -1))
	if one == 0 || two == 0 || one+two != 100 {
		t.Errorf("the queues have %d and %d messages, of 100", one, two)
	}
	q.Queues = []string{first}
	o.check(b.Bind(testContext(t), q))
	o.check(o.send(q.Exchange, q.PeerID+".1", messages...))
	if one, two = len(o.take(first, -1)), len(o.take(second, -1)); one != 100 || two != 0 {
		t.Errorf("the queues have %d and %d messages, want 100 and 0", one, two)
	}
}

// Queues bound by the reference, or by a version of this program that used no routing key,
// have one binding afterwards: each gets its share of the messages, and none after it is
// removed.
func TestQueuesBoundByOthers(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	q := testPeer()
	first, second := q.Queues[0], "peer."+q.PeerID+".1"
	q.Queues = []string{first, second}
	o.check(o.ExchangeDeclare(peerExchange(q), "x-random", true, false, false, false, nil))
	for queue, key := range map[string]string{first: "", second: second} {
		_, err := o.QueueDeclare(queue, true, false, false, false, deadLettering(queue))
		o.check(err)
		o.check(o.QueueBind(queue, key, peerExchange(q), false, nil))
	}
	o.check(b.Bind(testContext(t), q))
	for _, queue := range q.Queues { // fails if there is another binding
		o.check(o.QueueUnbind(queue, queue, peerExchange(q), nil))
	}
	if err := newTestClient(t, s).try(q.Exchange, q.PeerID+".1", amqp.Publishing{}); !errors.Is(err, broker.ErrUnroutable) {
		t.Errorf("there are bindings with other keys than the queues' names: %v", err)
	}
	for _, queue := range q.Queues {
		o.check(o.QueueBind(queue, queue, peerExchange(q), false, nil))
	}
	q.Queues = []string{first}
	o.check(b.Bind(testContext(t), q))
	o.check(o.send(q.Exchange, q.PeerID+".1", publishings(make([]broker.Outgoing, 50))...))
	if one, two := len(o.take(first, -1)), len(o.take(second, -1)); one != 50 || two != 0 {
		t.Errorf("the queues have %d and %d messages, want 50 and 0", one, two)
	}
}

// An existing queue is used as it is; a new one has the configured type.
func TestQueueType(t *testing.T) {
	s := rabbittest.Get(t)
	o := newTestClient(t, s)
	for _, test := range []struct{ before, opt, want QueueType }{
		{"", Classic, cmp.Or(QueueType(os.Getenv("RABBITMQ_DEFAULT_QUEUE_TYPE")), Classic)}, // as the reference declares it
		{"", Quorum, Quorum},
		{Classic, Quorum, Classic},
		{Quorum, Classic, Quorum},
	} {
		q := testPeer()
		for _, name := range []string{q.Queues[0], q.Queues[0] + ".XQ"} {
			if test.before != "" {
				_, err := o.QueueDeclare(name, true, false, false, false, amqp.Table{"x-queue-type": string(test.before)})
				o.check(err)
			}
		}
		b := openTest(t, s.URL(), Options{QueueType: test.opt})
		if err := b.Bind(testContext(t), q); err != nil {
			t.Errorf("%+v: %v", test, err)
		}
		args := amqp.Table{"x-queue-type": string(test.want)}
		if test.before == "" && test.opt == Quorum && majorOf(o.conn.Properties["version"].(string)) >= 4 {
			args["x-delivery-limit"] = noLimit
		}
		if xq := q.Queues[0] + ".XQ"; !o.declaredAs(xq, args) {
			t.Errorf("%+v: queue %s is of another type", test, xq)
		}
	}
}

// An existing exchange of another type is an error, which does not affect other users of
// the broker.
func TestOtherExchange(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	good, bad := testPeer(), testPeer()
	o.check(b.Bind(testContext(t), good))
	c, err := b.Consume(testContext(t), good.Queues[0])
	o.check(err)
	defer c.Close()
	bad.Exchange = "other" + suffix()
	o.check(o.ExchangeDeclare(bad.Exchange, "headers", true, false, false, false, nil))
	var e *amqp.Error
	if err := b.Bind(testContext(t), bad); !errors.As(err, &e) || e.Code != amqp.PreconditionFailed {
		t.Errorf("got %v, want PRECONDITION_FAILED", err)
	}
	o.check(o.send(good.Exchange, good.PeerID+".1", amqp.Publishing{}))
	if _, err := c.Next(testContext(t), 1); err != nil {
		t.Error(err)
	}
}

// Invalid objects are refused without a request to RabbitMQ.
func TestDeclareRefused(t *testing.T) {
	long := string(make([]byte, 256))
	b := openTest(t, "amqp://127.0.0.1:1", Options{})
	for i, spoil := range []func(*broker.PeerBinding){
		func(q *broker.PeerBinding) { q.PeerID = "" },
		func(q *broker.PeerBinding) { q.PeerID = long[:252] },
		func(q *broker.PeerBinding) { q.Prefix = "" },
		func(q *broker.PeerBinding) { q.Exchange = long },
		func(q *broker.PeerBinding) { q.BindingKey = long },
		func(q *broker.PeerBinding) { q.Fanout = true },
		func(q *broker.PeerBinding) { q.Queues = nil },
		func(q *broker.PeerBinding) { q.Queues = []string{"q", ""} },
		func(q *broker.PeerBinding) { q.Queues = []string{long[:253]} },
	} {
		q := testPeer()
		spoil(&q)
		if err := b.Bind(testContext(t), q); !errors.Is(err, ErrInvalid) {
			t.Errorf("case %d: got %v, want ErrInvalid", i, err)
		}
	}
}

// The delivery limit is removed in RabbitMQ 4 only: older versions refuse the argument.
func TestDeliveryLimit(t *testing.T) {
	for version, want := range map[string]any{"3.13.7": nil, "4.0.2": -1, "10.1": -1, "": nil, "four": nil} {
		d := declarer{queueType: Quorum, live: &liveConn{Connection: &amqp.Connection{Properties: amqp.Table{"version": version}}}}
		args := d.withQueueType(amqp.Table{"x": "y"})
		if got := args["x-delivery-limit"]; got != want || args["x"] != "y" || args["x-queue-type"] != "quorum" {
			t.Errorf("version %q: %v", version, fmt.Sprint(args))
		}
	}
}
