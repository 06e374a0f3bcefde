package link_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"peerlink/broker"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// rejecting is a broker that refuses all messages of peers with an error.
type rejecting struct {
	broker.Broker
	err error
}

type rejectingPublisher struct {
	broker.Publisher
	err error
}

func (r rejecting) Publish(ctx context.Context, confirmed func(uint64, error)) (broker.Publisher, error) {
	p, err := r.Broker.Publish(ctx, confirmed)
	return rejectingPublisher{p, r.err}, err
}

func (p rejectingPublisher) Publish(context.Context, *broker.Incoming) error { return p.err }

// While the broker refuses messages, as one with a limited queue does, a peer cannot
// fill the log with repeated attempts.
func TestRejectedMessagesDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	authority, _, bad := trio(t, linktest.Embedded, func(n *linktest.Node) {
		n.Config.Broker = rejecting{n.Config.Broker, errors.New("the queue is full")}
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

// If no queue is bound for the messages of a peer, its link says what the operator has to do.
func TestUnroutableHasRemedy(t *testing.T) {
	t.Parallel()
	authority, _, bad := trio(t, linktest.Embedded, func(n *linktest.Node) {
		n.Config.Broker = rejecting{n.Config.Broker, fmt.Errorf("%w: exchange accounts_in", broker.ErrUnroutable)}
	})
	if _, err := io.WriteString(session(t, bad, authority), sendFrame("1", translated(t, bad, authority, 1))); err != nil {
		t.Fatal(err)
	}
	linktest.Eventually(t, "the state of the link", func() error {
		if in := statusOf(t, authority, bad).In; !strings.Contains(in.Reason, "accounts_in") || !strings.Contains(in.Remedy, "bind a queue") {
			return fmt.Errorf("%+v", in)
		}
		return nil
	})
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
