package link

import (
	"testing"

	"peerlink/node/nodetype"
	"peerlink/smp"
)

// A message of an accounting authority that is routed to no peer is checked as one to a peer of
// the type that the exchange is for.
func TestViewOfAnyPeer(t *testing.T) {
	o := &Outbox{owner: nodetype.AccountingAuthority}
	for peer, creditors := range map[nodetype.Type]smp.Subnet{nodetype.CreditorsAgent: {}, nodetype.DebtorsAgent: rootCreditors} {
		if v := o.anyPeer(o.owner.Outbox(peer)); v.Peer != peer || v.PeerCreditors != creditors {
			t.Errorf("%v: the view is %+v", peer, v)
		}
	}
}
