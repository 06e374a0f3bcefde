package link

import (
	"errors"
	"testing"

	"peerlink/broker"
	"peerlink/smp"
)

// While the next successor of a replaced peer has no queues yet, the queues of the replaced peer
// do not lead to its former successor any more: messages wait in them.
func TestSuccessorNotBound(t *testing.T) {
	t.Parallel()
	r := newReconciler(newShared(Config{}))
	replaced, former := r.peers.getOrAdd("1234abcd"), r.peers.getOrAdd("1234abce")
	replaced.successor, replaced.handedOver = former.id, []string{"queue"}
	if err := r.handOver(t.Context(), replaced, "1234abcf", broker.PeerBinding{}, smp.View{}); !errors.Is(err, errNoSuccessor) {
		t.Errorf("got %v, want errNoSuccessor", err)
	}
	if queues := r.queuesTakenOver(former.id); len(queues) > 0 {
		t.Errorf("the queues %q lead to the former successor", queues)
	}
}
