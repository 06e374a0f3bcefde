package rabbitmq

import (
	"errors"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
)

// If RabbitMQ is empty after a restart, like a container without its volume, while the
// queues are not consumed, they are declared again without any call, and messages of
// applications reach them.
func TestReset(t *testing.T) {
	s := rabbittest.Get(t)
	log := new(logBuffer)
	b := openTest(t, s.URL(), Options{Logger: log.logger()})
	var peers []broker.PeerBinding
	for range 3 {
		q := testPeer()
		if err := b.Bind(testContext(t), q); err != nil {
			t.Fatal(err)
		}
		peers = append(peers, q)
	}
	unbound := peers[2]
	if err := b.Unbind(testContext(t), unbound); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"stop_app", "reset", "start_app"} {
		if err := s.Control(command); err != nil {
			t.Fatal(err)
		}
	}
	for _, q := range peers[:2] {
		eventually(t, "the queue of peer "+q.PeerID, func() error {
			return newTestClient(t, s).try(q.Exchange, q.PeerID+".1", amqp.Publishing{Body: []byte("1")})
		})
	}
	o := newTestClient(t, s)
	if err := o.send(peers[0].Exchange, unbound.PeerID+".1", amqp.Publishing{}); err == nil {
		t.Error("a message for the unbound peer is accepted")
	}
	if !strings.Contains(log.String(), "queues had vanished from RabbitMQ") {
		t.Errorf("the log has no record of the queues:\n%s", log)
	}
}

// Objects that were deleted while the connection stays are restored by the next check. Queues and
// exchanges that were deleted are logged, and not again by later checks. (Twice is possible: while
// RabbitMQ is deleting an exchange, it may say that there is none, then that it is declared, and then
// that there is none.)
func TestDeletedWhileConnected(t *testing.T) {
	s := rabbittest.Get(t)
	log := new(logBuffer)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{Logger: log.logger(), checkInterval: 100 * time.Millisecond})
	q := testPeer()
	if err := b.Bind(testContext(t), q); err != nil {
		t.Fatal(err)
	}
	for _, delete := range []func() error{
		func() error { _, err := o.QueueDelete(q.Queues[0], false, false, false); return err },
		func() error { return o.ExchangeDelete(peerExchange(q), false, false) },
		func() error { return o.QueueUnbind(q.Queues[0], q.Queues[0], peerExchange(q), nil) },
		func() error { return o.ExchangeUnbind(peerExchange(q), q.BindingKey, q.Exchange, false, nil) },
	} {
		o.check(delete())
		eventually(t, "declaring again", func() error {
			return newTestClient(t, s).try(q.Exchange, q.PeerID+".1", amqp.Publishing{})
		})
	}
	for _, name := range []string{"queues=" + q.Queues[0], "exchanges=" + peerExchange(q)} {
		if n := strings.Count(log.String(), name); n < 1 || n > 2 {
			t.Errorf("the log has %d records with %s, want 1 or 2:\n%s", n, name, log)
		}
	}
}

// If the objects of a peer cannot be declared after a loss of the connection, that is tried
// again soon, not only at the next check of all peers, and the log does not report before
// that everything is declared. It reports the queues that the failed attempt has declared again.
func TestDeclaringFails(t *testing.T) {
	s := rabbittest.Get(t)
	log := new(logBuffer)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{Logger: log.logger(), checkInterval: time.Hour})
	q := testPeer()
	o.check(b.Bind(testContext(t), q))
	o.check(o.ExchangeDelete(q.Exchange, false, false))
	o.check(o.ExchangeDeclare(q.Exchange, "direct", true, false, false, false, nil))
	_, err := o.QueueDelete(q.Queues[0], false, false, false)
	o.check(err)
	o.check(s.Control("close_all_connections", "test"))
	logged := func(text string) func() error {
		return func() error {
			if !strings.Contains(log.String(), text) {
				return errors.New("not in the log")
			}
			return nil
		}
	}
	const everything = "everything is declared again"
	eventually(t, "failure", logged("can not be declared again now"))
	if logged(everything)() == nil {
		t.Errorf("the log reports that everything is declared:\n%s", log)
	}
	o = newTestClient(t, s)
	o.check(o.ExchangeDelete(q.Exchange, false, false))
	eventually(t, "declaring again", logged(everything))
	o.check(o.send(q.Exchange, q.PeerID+".1", amqp.Publishing{}))
	if n := strings.Count(log.String(), "queues="+q.Queues[0]); n != 1 {
		t.Errorf("the log has %d records of the queue that had vanished, want 1:\n%s", n, log)
	}
}
