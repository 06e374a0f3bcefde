package link_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// If more queues lead to a peer than it accepts connections, the queues share the
// connections by time slices: all are emptied repeatedly, though no connection is
// idle and the peer closes none.
func TestQueuesTakeTurns(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	const queues = 5
	id := authority.Identity().ID
	if err := other.SetQueues(t.Context(), id, queues); err != nil {
		t.Fatal(err)
	}
	authority.Config.MaxConnsPerPeer, authority.Config.ConnTimeSlice = 2, time.Hour
	memory := linktest.NewMemory()
	other.Config.Broker = memory
	other.Config.AllQueues, other.Config.ConnTimeSlice = true, 200*time.Millisecond
	other.Config.RetryMin, other.Config.RetryMax = 10*time.Millisecond, 10*time.Millisecond // pauses of senders that are refused before the connection of another one is in use
	authority.Start()
	other.Start()
	for round := range 3 {
		for n := range queues {
			memory.Put(fmt.Sprintf("peer.%s.%d", id, n), linktest.Message(t, other, authority, round*queues+n))
		}
		authority.Take(queues)
	}
}

// A peer that accepts no more connections because some were abandoned is dialed again
// soon, and not after a time slice: no other queue uses a connection.
func TestRetryAfterAbandonedConnections(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	authority.Config.MaxConnsPerPeer, authority.Config.ConnTimeSlice = 1, time.Hour
	other.Config.ConnTimeSlice = time.Hour
	authority.Start()
	abandoned := session(t, other, authority)
	other.Start()
	linktest.Eventually(t, "a refusal", func() error {
		if text := other.Log.String(); !strings.Contains(text, "Too many connections") {
			return fmt.Errorf("the log is %q", text)
		}
		return nil
	})
	abandoned.Close()
	other.Put(authority, linktest.Message(t, other, authority, 1))
	authority.Take(1)
}
