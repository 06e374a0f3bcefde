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
	successor, err := r.cfg.Dir.CurrentSuccessor(p.id)
	if err != nil {
		return err
	}
	p.stopDrainers() // drainers of an earlier reconciliation may use an older view
	if successor != "" {
		return r.handOver(ctx, p, successor, binding, view)
	}
	if err := r.unbind(ctx, p, binding); err != nil {
		return err
	}
	p.bound, p.successor, p.handedOver = false, "", nil
	r.cfg.Outbox.remove(p.id)
	r.startDrainers(ctx, graceCtx, p, view, append(slices.Clip(binding.Queues), p.former...))
	return nil
}

// handOver makes the queues of a deactivated peer lead to the peer that has its accounts now, once the
// queues of that one are bound, so that there is a queue for each message all the time.
func (r *reconciler) handOver(ctx context.Context, p *peer, successor string, binding broker.PeerBinding, view smp.View) error {
	next := r.peers.get(successor)
	if next == nil || !next.bound {
		p.successor, p.handedOver = "", nil
		r.cfg.Outbox.set(binding, view)
		return errNoSuccessor
	}
	if err := r.unbind(ctx, p, binding); err != nil {
		return err
	}
	p.bound = false
	r.cfg.Outbox.remove(p.id)
	p.successor, p.handedOver = successor, append(slices.Clip(binding.Queues), p.former...)
	next.stamp = nil // its next reconciliation starts senders for these queues
	r.log.Info("messages that wait for a replaced peer go to its successor", "peer", p.id, "successor", successor, "queues", p.handedOver)
	return nil
}

// successorChanged reports whether the queues of a deactivated peer do not lead any more to the peer that
// should get their messages.
func (r *reconciler) successorChanged(p *peer) bool {
	if p.successor == "" {
		return false
	}
	successor, err := r.cfg.Dir.CurrentSuccessor(p.id)
	return err == nil && successor != p.successor
}

// queuesTakenOver returns the names of the queues of replaced peers that lead to a peer now.
func (r *reconciler) queuesTakenOver(id string) (queues []string) {
	for _, p := range r.peers.all() {
		if p.successor == id {
			queues = append(queues, p.handedOver...)
		}
	}
	return queues
}
