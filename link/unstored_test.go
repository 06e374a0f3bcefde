package link_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"peerlink/broker"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// slowBroker does not store the messages of one peer before release is called.
type slowBroker struct {
	broker.Broker
	peer string

	mu       sync.Mutex
	released bool
	held     int // messages of the peer that were not stored at once
	waiting  []func()
}

func (b *slowBroker) Publish(ctx context.Context, confirmed func(n uint64, err error)) (broker.Publisher, error) {
	p, err := b.Broker.Publish(ctx, confirmed)
	return &slowPublisher{Publisher: p, b: b, confirmed: confirmed}, err
}

func (b *slowBroker) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held
}

func (b *slowBroker) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.released = true
	for _, store := range b.waiting {
		store()
	}
}

type slowPublisher struct {
	broker.Publisher
	b         *slowBroker
	confirmed func(n uint64, err error)
	n         uint64
}

func (p *slowPublisher) Publish(ctx context.Context, in *broker.Incoming) error {
	if in.Peer != p.b.peer {
		return p.Publisher.Publish(ctx, in)
	}
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	p.n++
	n := p.n
	p.b.held++
	if p.b.released {
		p.confirmed(n, nil)
	} else {
		p.b.waiting = append(p.b.waiting, func() { go p.confirmed(n, nil) })
	}
	return nil
}

// The number of messages of one peer, on all its connections, that were passed to the broker
// and are not stored yet is limited, so that they do not delay other peers: a broker processes
// all messages in order.
func TestUnstoredMessagesAreBounded(t *testing.T) {
	t.Parallel()
	authority, honest, bad := linktest.New(t, aa), linktest.New(t, ca), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, honest.Node)
	nodetest.Peer(t, authority.Node, bad.Node)
	slow := &slowBroker{Broker: authority.Config.Broker, peer: bad.Identity().ID}
	authority.Config.Broker = slow
	authority.Start()
	honest.Start()
	const conns, each, most = 3, 800, 2048
	for i := range conns {
		conn := session(t, bad, authority)
		var frames bytes.Buffer
		for n := range each {
			frames.WriteString(sendFrame(fmt.Sprint(n), translated(t, bad, authority, i*each+n)))
		}
		go conn.Write(frames.Bytes())
	}
	until := func(want int) {
		t.Helper()
		for deadline := time.Now().Add(linktest.Timeout); slow.count() < want; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d messages of the peer are in the broker, want %d", slow.count(), want)
			}
		}
	}
	until(most)
	flows(t, authority, honest, 1)
	if got := slow.count(); got != most {
		t.Errorf("%d messages of the peer are in the broker, want %d", got, most)
	}
	slow.release()
	until(conns * each)
	flows(t, authority, honest, 2)
}
