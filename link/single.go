package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"peerlink/broker"
	"peerlink/internal/wait"
)

// Receive, Send and Drain are for operators that run a node as many processes with one
// task each, as the reference implementation does, instead of [Service.Run]. Then other
// programs make the objects in the broker and mark peers as active.

var (
	// ErrNotActive means that there must be no traffic with a peer: it is not
	// registered, or not marked as active yet, or deactivated.
	ErrNotActive = errors.New("link: peer is not active")
	// ErrNotDeactivated means that a peer's queue must not be drained: its
	// messages are to be sent.
	ErrNotDeactivated = errors.New("link: peer is not deactivated")
)

// Receive accepts connections from all active peers until ctx is done, and ends as
// [Service.Run] does. It sends nothing.
func (s *Service) Receive(ctx context.Context) error {
	s.receiveOnly = true
	return s.Run(ctx)
}

// Send sends the messages in a queue to a peer, over one connection, and returns why
// the connection has ended, or nil if ctx is done. When the connection is idle
// ([Config.IdleTimeout]), Send closes it and makes another one as soon as there is
// something to send. While another process sends from the queue, Send waits. It returns
// [ErrNotActive] if the peer is not active, and as soon as it is deactivated. When this
// node's certificate is renewed, another connection replaces the first.
func (s *Service) Send(ctx context.Context, peerID, queue string) error {
	st, err := s.activePeer(peerID, queue)
	if err != nil {
		return err
	}
	p := s.peers.getOrAdd(peerID)
	p.replaceState(st)
	return s.runOne(ctx, func(ctx, connCtx context.Context) error {
		ctx, stop := context.WithCancelCause(ctx)
		defer stop(nil)
		s.wg.Go(func() { stop(s.watchPeer(ctx, peerID)) })
		sd := s.newSender(p, queue)
		defer s.queuePacer.addSender()()
		for {
			_, err := sd.attempt(ctx, connCtx)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if !sd.standsBy(err) {
				return err
			}
			if err := wait.Sleep(ctx, s.standbyPause()); err != nil {
				return context.Cause(ctx)
			}
		}
	})
}

// Drain answers the messages in a queue on behalf of a deactivated peer, those that
// arrive later included, until ctx is done (it then returns nil) or something fails.
// While another process consumes the queue, Drain waits. It returns [ErrNotDeactivated]
// if the peer is not deactivated.
func (s *Service) Drain(ctx context.Context, peerID, queue string) error {
	p, err := s.cfg.Dir.Peer(peerID)
	if err != nil {
		return err
	}
	if p.SubCA == nil || p.Deactivated == "" {
		return fmt.Errorf("%w: %s is %s", ErrNotDeactivated, peerID, p.State())
	}
	view, err := View(s.cfg.Dir, p)
	if err != nil {
		return err
	}
	return s.runOne(ctx, func(ctx, connCtx context.Context) error {
		d := s.newDrainer(peerID, queue, view)
		defer d.report("draining ends")
		standby := false
		for {
			err := d.drain(ctx, connCtx, 0)
			if errors.Is(err, broker.ErrReopen) {
				continue
			}
			if !errors.Is(err, broker.ErrInUse) {
				return err
			}
			if !standby {
				d.log.Info("another process drains this queue, standing by")
			}
			standby = true
			if err := wait.Sleep(ctx, s.standbyPause()); err != nil {
				return err
			}
		}
	})
}

// runOne runs do until ctx is done, and waits until its goroutines have ended. That may
// take [Config.DrainTimeout].
func (s *Service) runOne(ctx context.Context, do func(ctx, connCtx context.Context) error) error {
	defer s.logLimiter.Close()
	connCtx, cut := s.graceContext(ctx, context.WithoutCancel(ctx))
	defer cut()
	err := do(ctx, connCtx)
	s.wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// activePeer returns the state for sending from a queue to a peer, or [ErrNotActive].
func (s *Service) activePeer(id, queue string) (*peerState, error) {
	p, err := s.cfg.Dir.Peer(id)
	if err != nil {
		return nil, err
	}
	if p.State() != "active" {
		return nil, fmt.Errorf("%w: %s is %s", ErrNotActive, id, p.State())
	}
	view, err := View(s.cfg.Dir, p)
	if err != nil {
		return nil, err
	}
	return &peerState{Peer: p, view: view, queue: broker.PeerQueue{PeerID: id, Queues: []string{queue}}}, nil
}

// watchPeer checks a peer, and this node's certificate, every [Config.PollInterval]. It
// returns when the peer is deactivated, or ctx is done.
func (s *Service) watchPeer(ctx context.Context, id string) error {
	for {
		if err := s.waitForPoll(ctx); err != nil {
			return err
		}
		s.reloadCertificate()
		// A directory that can not be read for a moment is ignored.
		if date, err := s.cfg.Dir.Deactivated(id); err == nil && date != "" {
			return fmt.Errorf("%w: %s has been deactivated", ErrNotActive, id)
		}
	}
}

// waitForPoll waits for the time of the next poll, or for a request ([Config.Recheck]).
func (s *Service) waitForPoll(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.cfg.Recheck:
		s.log.Info("looking at the node's directory again")
	case <-time.After(s.cfg.PollInterval):
	}
	return nil
}
