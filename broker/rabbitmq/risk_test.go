package rabbitmq

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
)

// If a peer's queue or a dead-letter queue was declared with arguments by which it loses
// messages, the warnings, the log and Info name these arguments, whatever other
// arguments the queue has. Determining them does not change the queue.
func TestRiskOfArguments(t *testing.T) {
	s := rabbittest.Get(t)
	o := newTestClient(t, s)
	for _, test := range []struct {
		args amqp.Table
		want []string
	}{
		{nil, nil},
		{amqp.Table{"x-queue-type": "quorum"}, nil},
		{amqp.Table{"x-max-length": 10, "x-overflow": "reject-publish"}, nil},
		{amqp.Table{"x-max-length": 10}, []string{"x-max-length 10"}},
		{amqp.Table{"x-queue-type": "quorum", "x-max-length-bytes": 1000, "x-overflow": "drop-head"}, []string{"x-max-length-bytes 1000"}},
		{amqp.Table{"x-message-ttl": 100_000, "x-expires": 200_000}, []string{"x-message-ttl 100000", "x-expires 200000"}},
		{amqp.Table{"x-queue-type": "classic", "x-max-priority": 5, "x-single-active-consumer": true, "x-expires": 300_000}, []string{"x-expires 300000"}},
		{amqp.Table{"x-queue-type": "quorum", "x-delivery-limit": 50, "x-message-ttl": 100_000}, []string{"x-message-ttl 100000"}},
		{amqp.Table{"x-queue-type": "stream"}, []string{"stream"}},
	} {
		for _, target := range []string{"peer's queue", "peer's queue without dead-letter exchange", "dead-letter queue"} {
			log := new(logBuffer)
			b := openTest(t, s.URL(), Options{Logger: log.logger()})
			q := testPeer()
			name, args := q.Queues[0], maps.Clone(test.args)
			if target == "peer's queue" {
				args = deadLettering(name)
				maps.Copy(args, test.args)
				if test.args["x-queue-type"] == "stream" {
					continue // has no dead-letter exchange
				}
			} else if target == "dead-letter queue" {
				name = referenceDeadLetterQueue(name)
			}
			_, err := o.QueueDeclare(name, true, false, false, false, args)
			o.check(err)
			o.check(b.Bind(testContext(t), q))
			o.check(b.Bind(testContext(t), q))
			info, err := b.Info(testContext(t), q.Queues[0])
			o.check(err)
			for what, text := range map[string]string{"warnings": strings.Join(b.Warnings(), ","), "log": log.String(), "info": info.Warning} {
				for _, want := range test.want {
					if strings.Count(text, want) != 1 || !strings.Contains(text, name) {
						t.Errorf("%v: the %s of the %s must have %q, once: %s", test.args, what, target, want, text)
					}
				}
				if test.want == nil && (strings.Contains(text, "drop") || strings.Contains(text, "argument")) {
					t.Errorf("%v: the %s of the %s must have no warning: %s", test.args, what, target, text)
				}
			}
			if !o.declaredAs(name, args) {
				t.Errorf("%v: the %s has other arguments", test.args, target)
			}
		}
	}
}

// A risk is logged when it is new or has changed, and not each time that it is found again.
func TestRiskLoggedOnce(t *testing.T) {
	log := new(logBuffer)
	b := &Broker{log: log.logger(), risks: make(map[string]risk)}
	for n, step := range []struct {
		risk risk
		want int // log entries after it
	}{
		{risk{arguments: "a"}, 1},
		{risk{arguments: "a"}, 1},
		{risk{arguments: "b"}, 2},
		{risk{arguments: "b", missing: "m"}, 3},
		{risk{arguments: "b", missing: "m"}, 3},
		{risk{missing: "m"}, 3},
		{risk{missing: "m", arguments: "a"}, 4},
		{risk{arguments: "a"}, 4},
		{risk{}, 4},
		{risk{arguments: "a"}, 5},
	} {
		b.setRisk("queue", func(r *risk) { *r = step.risk })
		if got := strings.Count(log.String(), "can drop or move messages"); got != step.want {
			t.Errorf("step %d: %d log entries, want %d", n, got, step.want)
		}
		if got := b.risks["queue"]; got != step.risk {
			t.Errorf("step %d: recorded is %+v, want %+v", n, got, step.risk)
		}
	}
}

// If a policy, which AMQP does not show, drops dead letters, that is detected, and the log
// has an excerpt of each message. With another dead-letter suffix, none is dropped, and messages
// rejected by other programs are listed too.
func TestPolicyDrops(t *testing.T) {
	s := rabbittest.Get(t)
	o := newTestClient(t, s)
	o.check(s.Control("set_policy", "drop", `^.+\.XQ$`, `{"max-length":3,"overflow":"drop-head"}`, "--apply-to", "queues"))
	defer s.Control("clear_policy", "drop")
	const count = 8
	for suffix, dropped := range map[string]bool{"": true, ".aside": false} {
		log := new(logBuffer)
		b := openTest(t, s.URL(), Options{Logger: log.logger(), DeadLetterSuffix: suffix})
		q, c := bindAndConsume(t, b)
		for n := range count {
			o.check(o.send(q.Exchange, q.PeerID+".1", amqp.Publishing{Type: "T", Body: fmt.Append(nil, "number ", n)}))
			setAsideNext(t, c, "reason")
		}
		checkLengths(t, c)
		o.check(c.Close())
		if warned := strings.Contains(strings.Join(b.Warnings(), ","), "fewer messages"); warned != dropped {
			t.Errorf("suffix %q: warnings %q", suffix, b.Warnings())
		}
		if n := strings.Count(log.String(), "can drop or move messages"); n > 1 || n == 1 != dropped {
			t.Errorf("suffix %q: the log has %d warnings:\n%s", suffix, n, log)
		}
		for n := range count {
			if want := fmt.Sprintf("body=\"number %d\"", n); !strings.Contains(log.String(), want) {
				t.Errorf("suffix %q: the log lacks %s", suffix, want)
			}
		}
		if !strings.Contains(log.String(), "routing_key="+q.PeerID+".1") {
			t.Errorf("suffix %q: the log lacks the routing key:\n%s", suffix, log)
		}
		if dropped {
			continue
		}
		o.check(o.send("", referenceDeadLetterQueue(q.Queues[0]), amqp.Publishing{Body: []byte("rejected by another")}))
		var ids []string
		var bodies []string
		for m, err := range b.List(testContext(t), q.Queues[0]) {
			o.check(err)
			ids, bodies = append(ids, m.ID), append(bodies, string(m.Body))
		}
		if len(ids) != count+1 || bodies[0] != "number 0" || bodies[count] != "rejected by another" {
			t.Fatalf("the dead letters are %q", bodies)
		}
		if info, err := b.Info(testContext(t), q.Queues[0]); err != nil || info != (broker.QueueInfo{DeadLetters: count + 1}) {
			t.Errorf("info %+v, %v", info, err)
		}
		if n, err := b.Retry(testContext(t), q.Queues[0], []string{ids[0], ids[count]}); n != 2 || err != nil {
			t.Errorf("%d sent again, %v", n, err)
		}
		o.take(q.Queues[0], 2)
		if n, err := b.Drop(testContext(t), q.Queues[0], ids[1:count]); n != count-1 || err != nil {
			t.Errorf("%d dropped, %v", n, err)
		}
	}
}

// A dead-letter suffix is refused if it does not begin with a point, is too long, or is that of
// the lock queues.
func TestDeadLetterSuffixRefused(t *testing.T) {
	for _, suffix := range []string{"XQ", ".lock", "." + strings.Repeat("x", 200)} {
		if b, err := Open("amqp://localhost", Options{DeadLetterSuffix: suffix}); err == nil {
			b.Close()
			t.Errorf("%q: accepted", suffix)
		}
	}
}

// The arguments of a queue are determined once, and again after every loss of the connection:
// RabbitMQ may have restarted with a queue that has other arguments, by which it loses messages.
func TestRiskAfterReconnect(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	q := testPeer()
	name := referenceDeadLetterQueue(q.Queues[0])
	o.check(b.Bind(testContext(t), q))
	_, err := o.QueueDelete(name, false, false, false)
	o.check(err)
	_, err = o.QueueDeclare(name, true, false, false, false, amqp.Table{"x-max-length": 10})
	o.check(err)
	o.check(b.Bind(testContext(t), q))
	if warnings := b.Warnings(); len(warnings) > 0 {
		t.Errorf("the arguments were determined twice on one connection: %q", warnings)
	}
	b.declaring.latest().cut()
	eventually(t, "determining the arguments again", func() error {
		if text := strings.Join(b.Warnings(), ","); !strings.Contains(text, name) || !strings.Contains(text, "x-max-length 10") {
			return fmt.Errorf("the warnings are %q", text)
		}
		return nil
	})
}
