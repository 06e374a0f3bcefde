package link_test

import (
	"fmt"
	"testing"
	"time"

	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// Where more queues lead to a peer than it takes connections from one peer, they take
// turns: all are emptied, again and again, though none of the connections rests and
// the peer ends none of its own accord.
func TestQueuesTakeTurns(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	const queues = 5
	id := authority.Identity().ID
	if err := other.SetQueues(t.Context(), id, queues); err != nil {
		t.Fatal(err)
	}
	authority.Config.MaxConnsPerPeer, authority.Config.ConnTurn = 2, time.Hour
	memory := linktest.NewMemory()
	other.Config.Broker = memory
	other.Config.AllQueues, other.Config.ConnTurn = true, 200*time.Millisecond
	other.Config.RetryMin, other.Config.RetryMax = 24*time.Hour, 24*time.Hour // which no queue must wait for
	authority.Start()
	other.Start()
	for round := range 3 {
		for n := range queues {
			memory.Put(fmt.Sprintf("peer.%s.%d", id, n), linktest.Message(t, other, authority, round*queues+n))
		}
		authority.Take(queues)
	}
	if s := statusOf(t, other, authority); s.Counts.Failures != 0 {
		t.Errorf("%d failures: %s", s.Counts.Failures, s.LastError)
	}
}
