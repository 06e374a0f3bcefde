package link

import (
	"context"
	"errors"
	"slices"
	"time"

	"peerlink/broker"
)

// errand is something that the broker is being told about a peer. A broker that
// is slow, or away, may take long for that. Nobody waits for it, least of all the
// news that another peer has been deactivated: when the errand is done, the peer
// is looked at again, with what its directory says then.
type errand struct {
	release bool // to take no more messages for the peer; otherwise to take them
	queue   broker.PeerQueue
	done    chan struct{} // closed when err is set
	err     error
}

const (
	// maxErrands is how many errands are run at once.
	maxErrands = 16
	// firstErrands is how long a service that starts waits for the broker. Peers
	// whose errands take longer are linked later.
	firstErrands = 10 * time.Second
)

// errPending is reported while an errand is under way.
var errPending = errors.New("the broker is being told")

// pending tells whether there is an errand that is not done.
func (e *errand) pending() bool {
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

// declare makes the broker take messages for a peer. It reports errPending until
// that is done.
func (s *Service) declare(ctx context.Context, p *peer, q broker.PeerQueue) error {
	return s.sendOn(ctx, p, &errand{queue: q})
}

// release makes the broker take no more messages for a peer. It reports
// errPending until that is done.
func (s *Service) release(ctx context.Context, p *peer, q broker.PeerQueue) error {
	return s.sendOn(ctx, p, &errand{release: true, queue: q})
}

// sendOn returns the result of the errand, or sends somebody on it.
func (s *Service) sendOn(ctx context.Context, p *peer, e *errand) error {
	last := p.errand
	if last.pending() {
		return errPending
	}
	p.errand = nil
	if last != nil && last.release == e.release && equalQueue(last.queue, e.queue) {
		return last.err
	}
	e.done = make(chan struct{})
	p.errand = e
	s.pending++
	s.wg.Go(func() {
		e.err = s.runErrand(ctx, e)
		close(e.done)
		select {
		case s.settled <- p:
		case <-ctx.Done():
		}
	})
	return errPending
}

func (s *Service) runErrand(ctx context.Context, e *errand) error {
	select {
	case s.errands <- struct{}{}:
		defer func() { <-s.errands }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if e.release {
		return s.cfg.Broker.Release(ctx, e.queue)
	}
	return s.cfg.Broker.Declare(ctx, e.queue)
}

// settle is called when an errand for p is done.
func (s *Service) settle(ctx, connCtx context.Context, p *peer) {
	s.pending--
	if p.missing == 0 {
		s.scanPeer(ctx, connCtx, p)
	}
}

// awaitErrands waits for the errands of the first scan.
func (s *Service) awaitErrands(ctx, connCtx context.Context) {
	patience := time.NewTimer(firstErrands)
	defer patience.Stop()
	for s.pending > 0 {
		select {
		case p := <-s.settled:
			s.settle(ctx, connCtx, p)
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
