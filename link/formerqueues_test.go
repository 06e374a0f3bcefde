package link

import (
	"slices"
	"testing"

	"peerlink/broker"
)

// The queues that may have led to a peer under other names are searched for, each name once
// and none that is in use: otherwise, messages that wait in them would never be sent. A service
// that uses only one queue does not search, since it would take the queues from other services.
func TestFormerQueues(t *testing.T) {
	t.Parallel()
	q := broker.PeerBinding{PeerID: "1234abcd", Prefix: "aa", Queues: []string{"new.1234abcd.0", "new.1234abcd.1"}}
	cfg := Config{AllQueues: true, FormerQueuePatterns: []QueuePattern{"old.{node-id}.{n}", DefaultQueuePattern, "new.{node-id}.{n}"}}
	want := []string{"peer.1234abcd.0", "peer.1234abcd.1", "aa.1234abcd", "aa.1234abcd.1", "old.1234abcd.0", "old.1234abcd.1"}
	if got := newReconciler(newShared(cfg)).formerQueues(q); !slices.Equal(got, want) {
		t.Errorf("former queues are %q, want %q", got, want)
	}
	cfg.AllQueues = false
	if got := newReconciler(newShared(cfg)).formerQueues(q); got != nil {
		t.Errorf("with one queue, former queues are %q", got)
	}
}
