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
	done   chan struct{} // closed when err is set
	err    error
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
	return r.startBindJob(ctx, p, &bindJob{queue: q})
}

// unbind unbinds the queues of a peer. It returns errBindPending until that is done.
func (r *reconciler) unbind(ctx context.Context, p *peer, q broker.PeerQueue) error {
	return r.startBindJob(ctx, p, &bindJob{unbind: true, queue: q})
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
		return last.err
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
	if e.unbind {
		return r.cfg.Broker.Unbind(ctx, e.queue)
	}
	return r.cfg.Broker.Bind(ctx, e.queue)
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
