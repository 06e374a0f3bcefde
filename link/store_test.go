package link_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"peerlink/broker"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// rejecting is a broker that refuses all messages of peers.
type rejecting struct{ broker.Broker }

type rejectingPublisher struct{ broker.Publisher }

func (r rejecting) Publish(ctx context.Context, confirmed func(uint64, error)) (broker.Publisher, error) {
	p, err := r.Broker.Publish(ctx, confirmed)
	return rejectingPublisher{p}, err
}

func (rejectingPublisher) Publish(context.Context, *broker.Incoming) error {
	return errors.New("the queue is full")
}

// While the broker refuses messages, as one with a limited queue does, a peer cannot
// fill the log with repeated attempts.
func TestRejectedMessagesDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	authority, _, bad := trio(t, linktest.Embedded, func(n *linktest.Node) {
		n.Config.Broker = rejecting{n.Config.Broker}
		n.Config.MaxConnsPerPeer = 100 // closed connections count for a moment
	})
	frame := sendFrame("1", translated(t, bad, authority, 1))
	for range 50 {
		conn := session(t, bad, authority)
		if _, err := io.WriteString(conn, frame); err != nil {
			t.Fatal(err)
		}
		if answer, err := io.ReadAll(conn); err != nil || bytes.Contains(answer, []byte("RECEIPT")) {
			t.Errorf("answer is %q, %v", answer, err)
		}
	}
	if lines := strings.Count(authority.Log.String(), "received messages can not be stored"); lines == 0 || lines > maxFloodLines {
		t.Errorf("%d lines about messages that are not stored", lines)
	}
}

// failing is a broker that loses the first stream of received messages, a moment after
// it has accepted one, as RabbitMQ does when it is restarted.
type failing struct {
	broker.Broker
	streams atomic.Int32
}

type failingPublisher struct {
	broker.Publisher
	confirmed func(uint64, error)
}

func (f *failing) Publish(ctx context.Context, confirmed func(uint64, error)) (broker.Publisher, error) {
	if f.streams.Add(1) > 1 {
		return f.Broker.Publish(ctx, confirmed)
	}
	p, err := f.Broker.Publish(ctx, func(uint64, error) {})
	return failingPublisher{p, confirmed}, err
}

func (f failingPublisher) Publish(context.Context, *broker.Incoming) error {
	time.AfterFunc(10*time.Millisecond, func() { f.confirmed(0, errors.New("the connection is lost")) })
	return nil
}

// A message that the receiver's broker has lost before it was durable is sent again
// without another message or a timeout.
func TestBrokerFailsLater(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	authority.Config.Broker = &failing{Broker: authority.Config.Broker}
	authority.Start()
	other.Start()
	other.Put(authority, linktest.Message(t, other, authority, 1))
	authority.Take(1)
	other.WaitDrained(authority, 0)
}
