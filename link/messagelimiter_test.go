package link_test

import (
	"fmt"
	"testing"
	"time"

	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// A node with many peers that starts does not dial all of them at once, but dials all
// of them.
func TestDialsArePaced(t *testing.T) {
	t.Parallel()
	const peers, rate = 12, 4
	dead := linktest.FreeAddress(t)
	attempts := refuse(t, dead)
	authority := linktest.New(t, aa)
	for range peers {
		agent := linktest.New(t, ca)
		agent.WriteStompTOML(dead)
		nodetest.Peer(t, authority.Node, agent.Node)
	}
	authority.Config.MaxDialRate = rate
	authority.Config.RetryMin, authority.Config.RetryMax = 24*time.Hour, 24*time.Hour // each dials once
	start := time.Now()
	authority.Start()
	linktest.Eventually(t, "an attempt for each peer", func() error {
		if n := attempts.Load(); n < peers {
			return fmt.Errorf("%d of %d", n, peers)
		}
		return nil
	})
	// As many at once as per second, then the rest.
	if took, least := time.Since(start), (peers-rate)*time.Second/rate; took < least-100*time.Millisecond {
		t.Errorf("%d attempts began within %v, want %v at least", peers, took, least)
	}
}
