package link

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/broker"
	"peerlink/node"
)

// downBroker cannot be used until its up time. Then it ends the test.
type downBroker struct {
	broker.Broker
	up   time.Time
	stop context.CancelFunc

	mu    sync.Mutex
	calls []time.Time
}

func (b *downBroker) CheckInUse(context.Context, string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, time.Now())
	if time.Now().After(b.up) {
		b.stop()
	}
	return errors.New("the broker is down")
}

// However long this node's broker is away, the pauses of its senders do not grow: soon after
// it is back, messages are sent.
func TestBrokerAwayDoesNotDelayPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		b := &downBroker{up: time.Now().Add(10 * time.Minute), stop: cancel}
		s := New(Config{Broker: b, Certificate: &Certificate{}})
		p := s.peers.getOrAdd("1234abcd")
		p.replaceState(&peerState{Peer: &node.Peer{Stomp: &node.StompConfig{}}})
		s.newSender(p, "q").run(ctx, ctx)
		if len(b.calls) < 100 {
			t.Errorf("there were %d attempts in ten minutes", len(b.calls))
		}
		for i := 1; i < len(b.calls); i++ {
			if pause := b.calls[i].Sub(b.calls[i-1]); pause > 2*brokerPause {
				t.Fatalf("a pause of %v after %d attempts", pause, i)
			}
		}
	})
}
