package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"peerlink/broker"
	"peerlink/internal/wait"
)

// What follows is for those who run a node as many processes that do one thing
// each, as the reference implementation does, instead of [Service.Run]. The
// objects in the broker, and the mark that makes a peer active, are made by
// others then.

var (
	// ErrNotActive means that there must be no traffic with a peer: it is not
	// registered, or not marked as active yet, or deactivated.
	ErrNotActive = errors.New("link: peer is not active")
	// ErrNotDeactivated means that a peer's queue must not be drained: its
	// messages are to be sent.
	ErrNotDeactivated = errors.New("link: peer is not deactivated")
)

// Receive accepts connections from all peers that are active, until ctx is
// done, and ends as [Service.Run] does. It sends nothing.
func (s *Service) Receive(ctx context.Context) error {
	s.receiveOnly = true
	return s.Run(ctx)
}

// Send sends what is in a queue to a peer, over one connection, and returns why
// that has ended, which is nil if ctx is done. A connection that rests
// ([Config.IdleTimeout]) has not ended: another one follows when there is
// something to send. While another process sends from the queue, Send waits. It
// reports [ErrNotActive] at the beginning and as soon as the peer is deactivated.
// When this node's certificate is renewed, another connection replaces the first.
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

// Drain answers what is in a queue in the name of a deactivated peer, now and
// when more comes, until ctx is done (it then returns nil) or something fails.
// While another process takes messages out of the queue, it waits. It reports
// [ErrNotDeactivated].
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

// runOne does one thing until ctx is done. What it has begun may take
// [Config.DrainTimeout] to end cleanly.
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

// activePeer reads what is needed to send to a peer from a queue.
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

// watchPeer looks at a peer, and at this node's certificate, now and then. It
// returns when the peer is deactivated, or ctx is done.
func (s *Service) watchPeer(ctx context.Context, id string) error {
	for {
		if err := s.waitForPoll(ctx); err != nil {
			return err
		}
		s.reloadCertificate()
		// A directory that can not be read for a moment says nothing.
		if date, err := s.cfg.Dir.Deactivated(id); err == nil && date != "" {
			return fmt.Errorf("%w: %s has been deactivated", ErrNotActive, id)
		}
	}
}

// waitForPoll waits until it is time for the next look, or one is asked for.
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
