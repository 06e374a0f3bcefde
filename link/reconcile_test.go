package link

import (
	"testing"

	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// A peer counts as gone only when its directory is missing at maxMissing polls in a row: while git
// or Kubernetes replaces the tree, it is missing for a moment.
func TestGoneAfterMaxMissing(t *testing.T) {
	t.Parallel()
	r := newReconciler(newShared(Config{Dir: nodetest.New(t, nodetype.CreditorsAgent, "localhost:1234").Dir}))
	p := r.peers.getOrAdd("1234abcd")
	for poll := 1; poll <= maxMissing+1; poll++ {
		if err := r.reconcile(t.Context(), t.Context()); err != nil {
			t.Fatal(err)
		}
		if gone := p.gone.Load(); gone != (poll >= maxMissing) {
			t.Errorf("poll %d: gone is %v", poll, gone)
		}
	}
}
