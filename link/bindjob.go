package link

import (
	"context"
	"errors"
	"slices"
	"time"

	"peerlink/broker"
)

// bindJob binds or unbinds the queues of a peer in the broker. That may take long if
// the broker is slow or unreachable. Nothing waits for it, in particular not the
// deactivation of another peer: when the job is done, the peer is reconciled again with
// the current content of its directory.
type bindJob struct {
	unbind bool // unbind the queues; otherwise bind them
	queue  broker.PeerQueue
	former []string      // names of queues that may have led to the peer before
	done   chan struct{} // closed when the fields below are set

	waiting []string // those of former that have messages
	err     error
}

const (
	// maxBindJobs is how many bind jobs run at once.
	maxBindJobs = 16
	// startupBindTime is how long a service waits for the broker when it starts. Peers
	// whose bind jobs take longer are linked later.
	startupBindTime = 10 * time.Second
)

// errBindPending is returned while a bind job is running.
var errBindPending = errors.New("the broker is being told")

// pending reports whether there is a bind job that is not done yet.
func (e *bindJob) pending() bool {
	if e == nil {
		return false
	}
	select {
	case <-e.done:
		return false
	default:
		return true
	}
}

// bind binds the queues of a peer. It returns errBindPending until that is done.
func (r *reconciler) bind(ctx context.Context, p *peer, q broker.PeerQueue) error {
	return r.startBindJob(ctx, p, &bindJob{queue: q, former: r.formerQueues(q)})
}

// unbind unbinds the queues of a peer. It returns errBindPending until that is done.
func (r *reconciler) unbind(ctx context.Context, p *peer, q broker.PeerQueue) error {
	return r.startBindJob(ctx, p, &bindJob{unbind: true, queue: q, former: r.formerQueues(q)})
}

// startBindJob returns the result of the last bind job if that did the same as e.
// Otherwise it starts e and returns errBindPending.
func (r *reconciler) startBindJob(ctx context.Context, p *peer, e *bindJob) error {
	last := p.bindJob
	if last.pending() {
		return errBindPending
	}
	p.bindJob = nil
	if last != nil && last.unbind == e.unbind && equalQueue(last.queue, e.queue) {
		if len(last.waiting) > 0 {
			r.log.Warn("messages wait in queues of an earlier --queue-pattern, they are sent too", "peer", p.id, "queues", last.waiting)
		}
		p.former = last.waiting
		if last.err != nil {
			return &brokerError{last.err}
		}
		return nil
	}
	e.done = make(chan struct{})
	p.bindJob = e
	r.pendingBinds++
	r.wg.Go(func() {
		e.err = r.runBindJob(ctx, e)
		close(e.done)
		select {
		case r.bindsDone <- p:
		case <-ctx.Done():
		}
	})
	return errBindPending
}

func (r *reconciler) runBindJob(ctx context.Context, e *bindJob) error {
	select {
	case r.bindSlots <- struct{}{}:
		defer func() { <-r.bindSlots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	bind := r.cfg.Broker.Bind
	if e.unbind {
		bind = r.cfg.Broker.Unbind
	}
	if err := bind(ctx, e.queue); err != nil {
		return err
	}
	var err error
	if b, ok := r.cfg.Broker.(broker.FormerQueues); ok && len(e.former) > 0 {
		e.waiting, err = b.UnbindFormer(ctx, e.queue, e.former)
	}
	return err
}

// formerQueues returns the names of queues that may have led to a peer before: by the default
// pattern, by that of the reference's Compose files, and by earlier patterns of this node.
func (r *reconciler) formerQueues(q broker.PeerQueue) (names []string) {
	if !r.cfg.AllQueues {
		return nil
	}
	patterns := append([]QueuePattern{DefaultQueuePattern, QueuePattern(q.Prefix + "." + nodeIDField)}, r.cfg.FormerQueuePatterns...)
	for _, pattern := range patterns {
		for n := range q.Queues {
			if name := pattern.Name(q.PeerID, n); !slices.Contains(q.Queues, name) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// bindJobDone is called when a bind job for p is done.
func (r *reconciler) bindJobDone(ctx, connCtx context.Context, p *peer) {
	r.pendingBinds--
	if p.missing == 0 {
		r.reconcilePeer(ctx, connCtx, p)
	}
}

// awaitBindJobs waits for the bind jobs of the first reconciliation.
func (r *reconciler) awaitBindJobs(ctx, connCtx context.Context) {
	patience := time.NewTimer(startupBindTime)
	defer patience.Stop()
	for r.pendingBinds > 0 {
		select {
		case p := <-r.bindsDone:
			r.bindJobDone(ctx, connCtx, p)
		case <-patience.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

func equalQueue(a, b broker.PeerQueue) bool {
	return a.Exchange == b.Exchange && a.Fanout == b.Fanout && a.BindingKey == b.BindingKey && slices.Equal(a.Queues, b.Queues)
}
