package link_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"peerlink/broker"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// noInbox is a broker that stores no messages of peers while the test says so, like
// RabbitMQ when it cannot be reached. It counts the attempts.
type noInbox struct {
	broker.Broker
	away     atomic.Bool
	attempts atomic.Int32
}

func (b *noInbox) Publish(ctx context.Context, confirmed func(uint64, error)) (broker.Publisher, error) {
	b.attempts.Add(1)
	if b.away.Load() {
		return nil, errors.New("RabbitMQ is away")
	}
	return b.Broker.Publish(ctx, confirmed)
}

// While the broker of the receiving node is away, the sender of the peer keeps its
// connection, so that the messages arrive as soon as the broker is back, and no failure
// makes its pauses grow. A stop of the receiving node is not delayed meanwhile.
func TestInboxAwayKeepsConnection(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	b := &noInbox{Broker: authority.Config.Broker}
	b.away.Store(true)
	authority.Config.Broker = b
	authority.Start()
	other.Start()
	other.Put(authority, linktest.Message(t, other, authority, 1))
	triedAgain := func() {
		tried := b.attempts.Load()
		linktest.Eventually(t, "the broker is tried again", func() error {
			if n := b.attempts.Load(); n < tried+3 {
				return fmt.Errorf("%d attempts, %d before", n, tried)
			}
			return nil
		})
	}
	triedAgain()
	if err := authority.Stop(); err != nil {
		t.Errorf("a stop while the broker is away: %v", err)
	}
	authority.Start()
	triedAgain()
	failures := statusOf(t, other, authority).Counts.Failures
	connections := func() int { return strings.Count(authority.Log.String(), "msg=receiving") }
	if n := connections(); n != 2 {
		t.Errorf("%d connections were made to two runs of the receiving node, want 2", n)
	}
	b.away.Store(false)
	authority.Take(1)
	other.WaitDrained(authority, 0)
	if n := connections(); n != 2 {
		t.Errorf("the message did not arrive on the connection that waited: %d were made", n)
	}
	if n := statusOf(t, other, authority).Counts.Failures; n != failures {
		t.Errorf("%d attempts failed, want %d", n, failures)
	}
}

// noQueue is a broker whose queues cannot be opened while the test says so, like those of
// a node of a cluster that is down. It counts the attempts.
type noQueue struct {
	broker.Broker
	away     atomic.Bool
	attempts atomic.Int32
}

func (b *noQueue) Consume(ctx context.Context, queue string) (broker.Consumer, error) {
	b.attempts.Add(1)
	if b.away.Load() {
		return nil, errors.New("the queue is down")
	}
	return b.Broker.Consume(ctx, queue)
}

// While the queue cannot be opened, the connection to the peer stays, and no failure
// makes the pauses grow, since the peer is not the reason.
func TestQueueAwayKeepsConnection(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	b := &noQueue{Broker: other.Config.Broker}
	b.away.Store(true)
	other.Config.Broker = b
	authority.Start()
	other.Start()
	other.Put(authority, linktest.Message(t, other, authority, 1))
	linktest.Eventually(t, "the queue is tried again", func() error {
		if n := b.attempts.Load(); n < 3 {
			return fmt.Errorf("%d attempts", n)
		}
		return nil
	})
	b.away.Store(false)
	authority.Take(1)
	if n := strings.Count(authority.Log.String(), "msg=receiving"); n != 1 {
		t.Errorf("%d connections were made, want 1", n)
	}
	if n := statusOf(t, other, authority).Counts.Failures; n != 0 {
		t.Errorf("%d failures are counted, want 0", n)
	}
}

// noBind is a broker that can bind no queues while the test says so, like one that is away
// when the service starts.
type noBind struct {
	broker.Broker
	away atomic.Bool
}

func (b *noBind) Bind(ctx context.Context, q broker.PeerBinding) error {
	if b.away.Load() {
		return errors.New("the broker is away")
	}
	return b.Broker.Bind(ctx, q)
}

// A node that starts while its broker is away accepts the connections of active peers: were
// they refused, the peers' pauses would grow, and their messages would arrive long after
// the broker is back.
func TestStartWhileBrokerIsAway(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	b := &noBind{Broker: authority.Config.Broker}
	authority.Config.Broker = b
	authority.Start()
	other.Start()
	other.Put(authority, linktest.Message(t, other, authority, 1))
	authority.Take(1)
	if err := authority.Stop(); err != nil {
		t.Fatal(err)
	}
	b.away.Store(true)
	authority.Start()
	other.Put(authority, linktest.Message(t, other, authority, 2))
	authority.Take(1)
	b.away.Store(false)
	authority.Put(other, linktest.Message(t, authority, other, 3))
	other.Take(1)
	if text := authority.Log.String(); strings.Contains(text, "connection rejected") {
		t.Errorf("a connection was refused:\n%s", text)
	}
}
