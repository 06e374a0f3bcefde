package linktest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/rabbitmq"
	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/node/nodetype"
	"peerlink/smp"
)

// RabbitMQ is the [BrokerSetup] of nodes on the RabbitMQ of the test binary, where their
// applications have declared the inbox. The two nodes of a pair share no names there.
// Only one test at a time can use it. The test is skipped if RabbitMQ is not installed.
func RabbitMQ(t testing.TB, n *Node) {
	t.Helper()
	lockRabbit(t)
	s := rabbittest.Get(t)
	a := rabbitApps{s.URL(), n}
	inbox := n.Identity().Type.Inbox()
	err := a.do(func(ch *amqp.Channel) error {
		if err := ch.ExchangeDeclare(inbox, "topic", true, false, false, false, nil); err != nil {
			return err
		}
		if _, err := ch.QueueDeclare(inbox, true, false, false, false, nil); err != nil {
			return err
		}
		return ch.QueueBind(inbox, "#", inbox, false, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.clean)
	b, err := rabbitmq.Open(s.URL(), rabbitmq.Options{Logger: n.Log.Logger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	n.Config.Broker, n.Config.AllQueues, n.apps = b, true, a
}

// rabbitMu is held by the test that uses RabbitMQ, named holder: two tests would use the
// same inbox.
var (
	rabbitMu sync.Mutex
	holder   atomic.Pointer[testing.TB]
)

// lockRabbit waits until no other test uses RabbitMQ, and reserves it until the test
// ends.
func lockRabbit(t testing.TB) {
	if h := holder.Load(); h != nil && *h == t {
		return
	}
	rabbitMu.Lock()
	holder.Store(&t)
	t.Cleanup(func() {
		holder.Store(nil)
		rabbitMu.Unlock()
	})
}

// rabbitApps are applications on RabbitMQ.
type rabbitApps struct {
	url  string
	node *Node
}

// do runs f on a connection of its own.
func (a rabbitApps) do(f func(*amqp.Channel) error) error {
	conn, err := amqp.Dial(a.url)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	return f(ch)
}

// put publishes messages as an application would. An invalid message has no routing key
// and is put into the first queue directly.
func (a rabbitApps) put(ctx context.Context, to *Node, messages []broker.Outgoing) error {
	own, peer := a.node.Identity().Type, to.Identity().Type
	// The first message shows whether the peer's queues are bound: before they are,
	// nothing may be put into any, because the caller tries again.
	for _, part := range [][]broker.Outgoing{messages[:1], messages[1:]} {
		if err := a.publish(ctx, own, peer, QueueTo(to), part); err != nil {
			return err
		}
	}
	return nil
}

// publish publishes messages and waits until they are durable.
func (a rabbitApps) publish(ctx context.Context, own, peer nodetype.Type, queue string, messages []broker.Outgoing) error {
	return a.do(func(ch *amqp.Channel) error {
		if err := ch.Confirm(false); err != nil {
			return err
		}
		returned := ch.NotifyReturn(make(chan amqp.Return, len(messages)))
		var confirmations []*amqp.DeferredConfirmation
		for _, m := range messages {
			exchange, key := "", queue
			if _, debtor, creditor, err := smp.PeekIDs(m.Body); err == nil {
				exchange, key = own.Outbox(peer), smp.OutgoingRoutingKey(own, peer, debtor, creditor)
			}
			c, err := ch.PublishWithDeferredConfirmWithContext(ctx, exchange, key, true, false, amqp.Publishing{
				DeliveryMode: amqp.Persistent, Type: m.Type, ContentType: m.ContentType, Body: m.Body,
			})
			if err != nil {
				return err
			}
			confirmations = append(confirmations, c)
		}
		for _, c := range confirmations { // they arrive in no particular order
			if ok, err := c.WaitContext(ctx); err != nil || !ok {
				return fmt.Errorf("RabbitMQ has not confirmed a message: %v", err)
			}
		}
		select {
		case r := <-returned:
			return fmt.Errorf("%w: %s", broker.ErrUnroutable, r.ReplyText)
		default:
			return nil
		}
	})
}

// take calls do with each message of the inbox, and removes the message, until do
// returns false. It continues after an outage of RabbitMQ.
func (a rabbitApps) take(ctx context.Context, inbox string, do func(broker.Incoming) bool) error {
	for {
		err := a.do(func(ch *amqp.Channel) error {
			deliveries, err := ch.ConsumeWithContext(ctx, inbox, "", false, false, false, false, nil)
			if err != nil {
				return err
			}
			for d := range deliveries {
				m := broker.Incoming{Exchange: d.Exchange, RoutingKey: d.RoutingKey, Type: d.Type, ContentType: d.ContentType, Body: d.Body}
				for name, value := range d.Headers {
					m.Headers = append(m.Headers, broker.Header{Name: name, Value: value})
				}
				more := do(m)
				if err := d.Ack(false); err != nil {
					return err
				}
				if !more {
					return nil
				}
			}
			return amqp.ErrClosed
		})
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; %w", ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (a rabbitApps) remaining(_ context.Context, queue string) (waiting int, aside []string, err error) {
	err = a.do(func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err != nil {
			return err
		}
		waiting = q.Messages
		for {
			d, ok, err := ch.Get(queue+".XQ", false)
			if err != nil {
				return err
			}
			if !ok {
				return returnAll(ch, queue+".XQ", len(aside))
			}
			aside = append(aside, fmt.Sprint(d.Headers["x-peerlink-reason"]))
		}
	})
	return waiting, aside, err
}

// returnAll returns the messages that the channel has taken from a queue, and waits until
// the queue has that number of messages: RabbitMQ 4.3 returns them later.
func returnAll(ch *amqp.Channel, queue string, number int) error {
	if number == 0 {
		return nil
	}
	if err := ch.Nack(0, true, true); err != nil {
		return err
	}
	for deadline := time.Now().Add(Timeout); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err != nil || q.Messages >= number {
			return err
		}
	}
	return fmt.Errorf("%d messages have not returned to %s", number, queue)
}

// clean deletes the objects of the node, for the next test.
func (a rabbitApps) clean() {
	own := a.node.Identity().Type
	peers, err := a.node.PeerIDs()
	if err != nil {
		a.node.t.Error(err)
	}
	exchanges, queues := []string{own.Inbox()}, []string{own.Inbox()}
	for _, peer := range []nodetype.Type{nodetype.AccountingAuthority, nodetype.CreditorsAgent, nodetype.DebtorsAgent} {
		if peer == nodetype.AccountingAuthority != (own == nodetype.AccountingAuthority) {
			exchanges = append(exchanges, own.Outbox(peer))
		}
	}
	for _, id := range peers {
		for n := range 4 {
			queue := fmt.Sprintf("peer.%s.%d", id, n)
			queues = append(queues, queue, queue+".XQ")
		}
	}
	err = a.do(func(ch *amqp.Channel) error {
		for _, name := range queues {
			if _, err := ch.QueueDelete(name, false, false, false); err != nil {
				return err
			}
		}
		for _, name := range exchanges {
			if err := ch.ExchangeDelete(name, false, false); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		a.node.t.Error(err)
	}
}

// Replica returns another service of a node on RabbitMQ, like one on another machine:
// with its own connection to RabbitMQ, address and log. All replicas must be made
// before the first is started.
func Replica(t testing.TB, n *Node) *Node {
	t.Helper()
	return ReplicaOn(t, n, RabbitMQ)
}

// ReplicaOn is Replica on another RabbitMQ than that of the test binary.
func ReplicaOn(t testing.TB, n *Node, on BrokerSetup) *Node {
	t.Helper()
	r := &Node{Node: n.Node, Addr: FreeAddress(t), CertFile: n.CertFile, KeyFile: n.KeyFile, Config: n.Config, Log: new(Log), t: t}
	on(t, r)
	return r
}
