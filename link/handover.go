package link

import (
	"context"
	"errors"
	"slices"

	"peerlink/broker"
	"peerlink/smp"
)

// errNoSuccessor is returned while the queues of the peer that takes the place of a replaced one, and has
// its accounts, are not bound. Then messages go on to wait in the queues of the replaced peer.
var errNoSuccessor = errors.New("the successor of the peer is not active yet")

// endQueues ends the routing to the queues of a deactivated peer, and drains them. But if another peer
// has its accounts now, these queues lead to that one.
func (r *reconciler) endQueues(ctx, graceCtx context.Context, p *peer, binding broker.PeerBinding, view smp.View) error {
	heir, err := r.cfg.Dir.Heir(p.id)
	if err != nil {
		return err
	}
	p.stopDrainers() // drainers of an earlier reconciliation may use an older view
	if heir != "" {
		return r.handOver(ctx, p, heir, binding, view)
	}
	if err := r.unbind(ctx, p, binding); err != nil {
		return err
	}
	p.bound, p.heir, p.handedOver = false, "", nil
	r.cfg.Outbox.remove(p.id)
	r.startDrainers(ctx, graceCtx, p, view, append(slices.Clip(binding.Queues), p.former...))
	return nil
}

// handOver makes the queues of a deactivated peer lead to the peer that has its accounts now, once the
// queues of that one are bound, so that there is a queue for each message all the time.
func (r *reconciler) handOver(ctx context.Context, p *peer, heir string, binding broker.PeerBinding, view smp.View) error {
	next := r.peers.get(heir)
	if next == nil || !next.bound {
		p.heir, p.handedOver = "", nil
		r.cfg.Outbox.set(binding, view)
		return errNoSuccessor
	}
	if err := r.unbind(ctx, p, binding); err != nil {
		return err
	}
	p.bound = false
	r.cfg.Outbox.remove(p.id)
	p.heir, p.handedOver = heir, append(slices.Clip(binding.Queues), p.former...)
	next.stamp = nil // its next reconciliation starts senders for these queues
	r.log.Info("messages that wait for a replaced peer go to its successor", "peer", p.id, "successor", heir, "queues", p.handedOver)
	return nil
}

// heirChanged reports whether the queues of a deactivated peer do not lead any more to the peer that
// should get their messages.
func (r *reconciler) heirChanged(p *peer) bool {
	if p.heir == "" {
		return false
	}
	heir, err := r.cfg.Dir.Heir(p.id)
	return err == nil && heir != p.heir
}

// inherited returns the names of the queues of replaced peers that lead to a peer now.
func (r *reconciler) inherited(id string) (queues []string) {
	for _, p := range r.peers.all() {
		if p.heir == id {
			queues = append(queues, p.handedOver...)
		}
	}
	return queues
}
