package link

import (
	"context"
	"errors"
	"slices"
	"time"

	"peerlink/broker"
)

// bindJob binds or unbinds the queues of a peer in the broker. That may take long if
// the broker is slow or unreachable. The reconciler does not wait for it, so that other
// peers, and their deactivation, are not delayed: when the job is done, the peer is
// reconciled again with the current content of its directory.
type bindJob struct {
	unbind  bool // unbind the queues; otherwise bind them
	binding broker.PeerBinding
	former  []string      // names of queues that may have led to the peer before
	done    chan struct{} // closed when the fields below are set

	waiting []string // the queues of former that contain messages
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
var errBindPending = errors.New("the broker is still binding or unbinding the queues")

// pending reports whether there is a bind job that is not done yet.
func (j *bindJob) pending() bool {
	if j == nil {
		return false
	}
	select {
	case <-j.done:
		return false
	default:
		return true
	}
}

// bind starts to bind the queues of a peer. It returns errBindPending until that is done;
// then it must be called again, and returns the result.
func (r *reconciler) bind(ctx context.Context, p *peer, b broker.PeerBinding) error {
	return r.startBindJob(ctx, p, &bindJob{binding: b, former: r.formerQueues(b)})
}

// unbind starts to unbind the queues of a peer. It returns errBindPending until that is
// done; then it must be called again, and returns the result.
func (r *reconciler) unbind(ctx context.Context, p *peer, b broker.PeerBinding) error {
	return r.startBindJob(ctx, p, &bindJob{unbind: true, binding: b, former: r.formerQueues(b)})
}

// startBindJob returns, once, the result of the peer's last bind job if that did the same as
// job, and sets p.former. Otherwise it starts job, unless another bind job is running, and
// returns errBindPending.
func (r *reconciler) startBindJob(ctx context.Context, p *peer, job *bindJob) error {
	last := p.bindJob
	if last.pending() {
		return errBindPending
	}
	p.bindJob = nil
	if last != nil && last.unbind == job.unbind && equalBinding(last.binding, job.binding) {
		if len(last.waiting) > 0 {
			r.log.Warn("messages wait in queues of an earlier --queue-pattern, these queues are emptied too", "peer", p.id, "queues", last.waiting)
		}
		p.former = last.waiting
		if last.err != nil {
			return &brokerError{last.err}
		}
		return nil
	}
	job.done = make(chan struct{})
	p.bindJob = job
	r.pendingBinds++
	r.wg.Go(func() {
		job.err = r.runBindJob(ctx, job)
		close(job.done)
		select {
		case r.bindsDone <- p:
		case <-ctx.Done():
		}
	})
	return errBindPending
}

// runBindJob does the work of a bind job, and sets its field waiting.
func (r *reconciler) runBindJob(ctx context.Context, job *bindJob) error {
	select {
	case r.bindSlots <- struct{}{}:
		defer func() { <-r.bindSlots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	bind := r.cfg.Broker.Bind
	if job.unbind {
		bind = r.cfg.Broker.Unbind
	}
	if err := bind(ctx, job.binding); err != nil {
		return err
	}
	var err error
	if b, ok := r.cfg.Broker.(broker.FormerQueues); ok && len(job.former) > 0 {
		job.waiting, err = b.UnbindFormer(ctx, job.binding, job.former)
	}
	return err
}

// formerQueues returns the names of queues that may have led to a peer before: by the default
// pattern, by that of the reference's Compose files, and by earlier patterns of this node. It
// returns none unless the service uses all queues.
func (r *reconciler) formerQueues(b broker.PeerBinding) (names []string) {
	if !r.cfg.AllQueues {
		return nil
	}
	patterns := append([]QueuePattern{DefaultQueuePattern, QueuePattern(b.Prefix + "." + nodeIDField)}, r.cfg.FormerQueuePatterns...)
	for _, pattern := range patterns {
		for n := range b.Queues {
			if name := pattern.Name(b.PeerID, n); !slices.Contains(b.Queues, name) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// bindJobDone reconciles p again when a bind job for p is done, unless the peer's
// directory is missing.
func (r *reconciler) bindJobDone(ctx, graceCtx context.Context, p *peer) {
	r.pendingBinds--
	if p.missing == 0 {
		r.reconcilePeer(ctx, graceCtx, p)
	}
}

// awaitBindJobs waits until the bind jobs of the first reconciliation are done, for at
// most startupBindTime.
func (r *reconciler) awaitBindJobs(ctx, graceCtx context.Context) {
	timeout := time.NewTimer(startupBindTime)
	defer timeout.Stop()
	for r.pendingBinds > 0 {
		select {
		case p := <-r.bindsDone:
			r.bindJobDone(ctx, graceCtx, p)
		case <-timeout.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// equalBinding reports whether two bindings of the same peer are equal.
func equalBinding(a, b broker.PeerBinding) bool {
	return a.Exchange == b.Exchange && a.Fanout == b.Fanout && a.BindingKey == b.BindingKey && slices.Equal(a.Queues, b.Queues)
}
