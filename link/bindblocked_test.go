package link_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"peerlink/broker"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// stuckBroker is a broker that does not answer the bind jobs of one peer until it is
// released.
type stuckBroker struct {
	broker.Broker
	peer     string
	called   chan struct{} // closed when Bind is called for the peer
	released chan struct{}
	once     sync.Once
}

func (b *stuckBroker) Bind(ctx context.Context, q broker.PeerBinding) error {
	if q.PeerID != b.peer {
		return b.Broker.Bind(ctx, q)
	}
	b.once.Do(func() { close(b.called) })
	select {
	case <-b.released:
		return b.Broker.Bind(ctx, q)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// While the broker does not answer the bind job of one peer, others are added and
// deactivated. That peer may be deactivated before its job is done, and is never linked
// then.
func TestBrokerDoesNotAnswer(t *testing.T) {
	t.Parallel()
	for name, deactivate := range map[string]bool{"linked later": false, "deactivated meanwhile": true} {
		t.Run(name, func(t *testing.T) {
			authority, first, second, stuck := linktest.New(t, aa), linktest.New(t, ca), linktest.New(t, ca), linktest.New(t, ca)
			b := &stuckBroker{Broker: authority.Config.Broker, peer: stuck.Identity().ID, called: make(chan struct{}), released: make(chan struct{})}
			authority.Config.Broker = b
			nodetest.Peer(t, authority.Node, first.Node)
			for _, n := range []*linktest.Node{authority, first, second, stuck} {
				n.Start()
			}
			exchange(t, authority, first, 1)
			nodetest.Peer(t, authority.Node, stuck.Node)
			<-b.called

			if _, err := authority.DeactivatePeer(context.Background(), first.Identity().ID); err != nil {
				t.Fatal(err)
			}
			says(t, first, "no active link with you", 1)
			nodetest.Peer(t, authority.Node, second.Node)
			second.Put(authority, linktest.Message(t, second, authority, 2))
			authority.Take(1)

			if !deactivate {
				close(b.released)
				stuck.Put(authority, linktest.Message(t, stuck, authority, 3))
				authority.Take(1)
				return
			}
			if _, err := authority.DeactivatePeer(context.Background(), stuck.Identity().ID); err != nil {
				t.Fatal(err)
			}
			close(b.released)
			linktest.Eventually(t, "the deactivation", func() error {
				for _, p := range authority.Service.Status().Peers {
					if p.ID == stuck.Identity().ID && p.State != "deactivated" {
						return fmt.Errorf("state %s", p.State)
					}
				}
				return nil
			})
			if text := authority.Log.String(); strings.Contains(text, `msg="peer is active" peer=`+stuck.Identity().ID) {
				t.Errorf("the peer was linked:\n%s", text)
			}
		})
	}
}
