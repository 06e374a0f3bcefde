package link_test

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"peerlink/broker"
	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// All peers of an authority start at the same moment, or all lose it because it
// restarts, and retry at short intervals. The links are up soon, both ways, with the
// queued messages, whether the peers have many addresses or one. No more handshakes
// begin than the limit allows, hardly any fails, and messages of a peer that stayed
// connected keep flowing. (BenchmarkThousandPeers does this with a thousand.)
func TestManyPeersReconnect(t *testing.T) {
	t.Parallel()
	const count, perSecond, atOnce = 60, 35, 16
	// With the race detector on a busy machine, handshakes are slow.
	const patience = 20 * time.Second
	authority, honest := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, honest.Node)
	members := linktest.NewAgents(t, authority, count)
	authority.Config.MaxHandshakes, authority.Config.MaxHandshakeRate, authority.Config.HandshakeTimeout = atOnce, perSecond, patience
	authority.Config.PollInterval = time.Second
	var line *linktest.Network
	apart := runtime.GOOS == "linux" // elsewhere all have one address
	authority.Wrap = func(l net.Listener) net.Listener {
		line = &linktest.Network{Listener: l, DistinctSources: apart}
		return line
	}
	agents, err := linktest.OpenAgents(members, link.Config{
		PollInterval: time.Minute, HandshakeTimeout: patience, RetryMin: 5 * time.Millisecond, RetryMax: 500 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	authority.Start()
	honest.Start()
	flows(t, authority, honest, 0)

	received := 0
	// meet makes the two sides connect, and returns when they have.
	meet := func(what string, begin func()) {
		var puts errgroup.Group
		for _, m := range members {
			message := m.MessageTo(t, authority, received)
			puts.Go(func() error {
				return authority.Store.PutAll(context.Background(), m.Queue(), []broker.Outgoing{message})
			})
		}
		if err := puts.Wait(); err != nil {
			t.Fatal(err)
		}
		agents.Put()
		received += count
		start := time.Now()
		begin()
		for n := 1; n == 1 || linked(authority, count+1) != nil; n++ {
			flows(t, authority, honest, n)
			if took := time.Since(start); took > linktest.Timeout {
				t.Fatalf("%s: after %v %v", what, took, linked(authority, count+1))
			}
		}
		t.Logf("%s: linked after %v", what, time.Since(start))
		linktest.Eventually(t, "the messages", func() error {
			if st := agents.State(); st.Waiting > 0 || st.Received != received {
				return fmt.Errorf("%d messages wait for the authority, %d of %d have come from it", st.Waiting, st.Received, received)
			}
			return nil
		})
		if most := linktest.Busiest(line.Begun(start), time.Second); most > atOnce+perSecond+1 {
			t.Errorf("%s: %d handshakes have begun within a second, want %d at once and %d in a second", what, most, atOnce, perSecond)
		}
		failed := agents.State().Rejected
		linktest.AddRejected(failed, authority.Service)
		for reason, n := range failed {
			if n > count/10 {
				t.Errorf("%s: %d handshakes have failed: %s", what, n, reason)
			}
		}
	}
	meet("peers start", func() {
		if err := agents.Start(); err != nil {
			t.Fatal(err)
		}
	})
	defer agents.Stop()
	if err := authority.Stop(); err != nil {
		t.Fatal(err)
	}
	apart = false
	meet("authority restarts, peers have one address", authority.Start)
}

// linked returns an error unless this number of the node's peers have links both ways.
func linked(n *linktest.Node, want int) error {
	up := 0
	for _, p := range n.Service.Status().Peers {
		if linktest.Linked(&p) {
			up++
		}
	}
	if up < want {
		return fmt.Errorf("%d of %d links are up", up, want)
	}
	return nil
}
