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
// RabbitMQ when it can not be reached. It counts the attempts.
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
	other.Left(authority, 0)
	if n := connections(); n != 2 {
		t.Errorf("the message did not arrive on the connection that waited: %d were made", n)
	}
	if n := statusOf(t, other, authority).Counts.Failures; n != failures {
		t.Errorf("%d attempts failed, want %d", n, failures)
	}
}

// noQueue is a broker whose queues can not be opened while the test says so, like those of
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

// While the queue can not be opened, the connection to the peer stays, and no failure
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
