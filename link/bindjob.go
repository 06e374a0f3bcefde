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
func (s *Service) bind(ctx context.Context, p *peer, q broker.PeerQueue) error {
	return s.startBindJob(ctx, p, &bindJob{queue: q})
}

// unbind unbinds the queues of a peer. It returns errBindPending until that is done.
func (s *Service) unbind(ctx context.Context, p *peer, q broker.PeerQueue) error {
	return s.startBindJob(ctx, p, &bindJob{unbind: true, queue: q})
}

// startBindJob returns the result of the last bind job if that did the same as e.
// Otherwise it starts e and returns errBindPending.
func (s *Service) startBindJob(ctx context.Context, p *peer, e *bindJob) error {
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
	s.pendingBinds++
	s.wg.Go(func() {
		e.err = s.runBindJob(ctx, e)
		close(e.done)
		select {
		case s.bindsDone <- p:
		case <-ctx.Done():
		}
	})
	return errBindPending
}

func (s *Service) runBindJob(ctx context.Context, e *bindJob) error {
	select {
	case s.bindSlots <- struct{}{}:
		defer func() { <-s.bindSlots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if e.unbind {
		return s.cfg.Broker.Unbind(ctx, e.queue)
	}
	return s.cfg.Broker.Bind(ctx, e.queue)
}

// bindJobDone is called when a bind job for p is done.
func (s *Service) bindJobDone(ctx, connCtx context.Context, p *peer) {
	s.pendingBinds--
	if p.missing == 0 {
		s.reconcilePeer(ctx, connCtx, p)
	}
}

// awaitBindJobs waits for the bind jobs of the first reconciliation.
func (s *Service) awaitBindJobs(ctx, connCtx context.Context) {
	patience := time.NewTimer(startupBindTime)
	defer patience.Stop()
	for s.pendingBinds > 0 {
		select {
		case p := <-s.bindsDone:
			s.bindJobDone(ctx, connCtx, p)
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
