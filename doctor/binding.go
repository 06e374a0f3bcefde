package doctor

import (
	"peerlink/broker"
	"peerlink/link"
	"peerlink/node"
)

// bindingOf returns the objects in the broker that carry the messages for a peer.
func bindingOf(d *node.Dir, p *node.Peer, pattern link.QueuePattern) (broker.PeerBinding, error) {
	view, err := link.View(d, p)
	if err != nil {
		return broker.PeerBinding{}, err
	}
	return link.BindingOf(d, p, view, pattern)
}
