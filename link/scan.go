package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"peerlink/node"
)

// maxMissing is how many scans in a row may miss a peer's directory before its
// traffic ends: replacing a whole tree, as git and Kubernetes do, takes a moment.
const maxMissing = 3

// watch scans the node's directory now and then until ctx is done.
func (s *Service) watch(ctx, connCtx context.Context) {
	tick := time.NewTicker(s.cfg.PollInterval)
	defer tick.Stop()
	defer s.scans.Stop()
	trouble := ""
	for {
		s.scans.Beat()
		select {
		case <-ctx.Done():
			return
		case p := <-s.settled:
			s.settle(ctx, connCtx, p)
			continue
		case <-s.cfg.Recheck:
			s.forget()
			trouble = ""
		case <-tick.C:
		}
		s.reloadCertificate()
		err := s.scan(ctx, connCtx)
		s.followDue(ctx)
		s.watchManifest()
		switch {
		case err == nil:
			if trouble != "" {
				s.setTrouble(nil)
			}
			trouble = ""
		case err.Error() != trouble && ctx.Err() == nil:
			trouble = err.Error()
			s.setTrouble(fmt.Errorf("the node's directory can not be read: %w", err))
			s.log.Error("the node's directory can not be read, the links stay as they are", "err", err)
		}
	}
}

// reloadCertificate takes over a renewed server certificate.
func (s *Service) reloadCertificate() {
	switch changed, err := s.cfg.Certificate.reload(); {
	case err != nil:
		s.log.Error("the last good server certificate stays in use", "err", err)
	case changed:
		s.log.Info("new server certificate", "not_after", s.cfg.Certificate.serverChain().Leaf.NotAfter)
	}
}

// forget makes the next scan look at everything as if for the first time. What is
// wrong is reported again.
func (s *Service) forget() {
	s.log.Info("looking at everything again: server certificate, node's directory, queues, published info-bundles")
	s.cfg.Certificate.forget()
	s.manifest = nil
	for _, p := range s.roster.all() {
		p.stamp, p.trouble, p.redeclare = node.Stamp{}, "", true
		p.follower.hurry()
	}
}

// scan brings the roster up to date with the node's directory.
func (s *Service) scan(ctx, connCtx context.Context) error {
	ids, err := s.cfg.Dir.PeerIDs()
	if err != nil {
		return err
	}
	there := make(map[string]bool, len(ids))
	for _, id := range ids {
		if !s.cfg.Dir.HasPeer(id) {
			continue
		}
		there[id] = true
		s.scanPeer(ctx, connCtx, s.roster.getOrAdd(id))
	}
	for _, p := range s.roster.all() {
		if there[p.id] {
			p.missing = 0
			p.gone.Store(false)
			continue
		}
		if p.missing++; p.missing == maxMissing {
			s.lose(p)
		}
	}
	return nil
}

// lose ends everything with a peer whose directory is not there any more.
func (s *Service) lose(p *peer) {
	p.stamp, p.trouble = node.Stamp{}, ""
	p.gone.Store(true)
	p.stopDrainers()
	if p.state.Load() != nil {
		s.log.Warn("peer is gone from the node's directory, its link ends", "peer", p.id)
		p.end()
	}
}

// scanPeer brings one peer up to date.
func (s *Service) scanPeer(ctx, connCtx context.Context, p *peer) {
	if p.errand.pending() {
		// The rest has to wait for the broker, but not this. An error comes
		// again when the errand is done.
		_ = s.endDeactivated(p)
		return
	}
	stamp, moved := s.cfg.Dir.Stamp(p.id), p.moved.Load()
	if stamp == p.stamp && moved == p.applied {
		return
	}
	switch err := s.updatePeer(ctx, connCtx, p); {
	case err == nil:
		p.stamp, p.applied, p.trouble = stamp, moved, ""
	case errors.Is(err, errPending):
	case err.Error() != p.trouble && ctx.Err() == nil:
		// Tried again at each scan, told once.
		p.trouble = err.Error()
		p.tally.note(err)
		s.log.Error("peer can not be brought up to date, its link stays as it is", "peer", p.id, "err", err)
	}
}

// endDeactivated ends the traffic with a peer that has been deactivated, whatever
// else is wrong with its files.
func (s *Service) endDeactivated(p *peer) error {
	date, err := s.cfg.Dir.Deactivated(p.id)
	st := p.state.Load()
	if date == "" || st == nil {
		return err
	}
	s.log.Warn("peer has been deactivated, its link ends", "peer", p.id, "date", date)
	last := *st.Peer
	last.Deactivated = date
	p.seen.Store(&last)
	p.end()
	return err
}

// updatePeer does for one peer what its directory says. Where the broker has to
// be told, it reports errPending, and is to be called again.
func (s *Service) updatePeer(ctx, connCtx context.Context, p *peer) error {
	log, d := s.log.With("peer", p.id), s.cfg.Dir
	if err := s.endDeactivated(p); err != nil {
		return err
	}
	np, err := d.Peer(p.id)
	if err != nil {
		return err
	}
	seen := *np
	p.seen.Store(&seen)
	if np.SubCA == nil {
		return nil // we wait for the certificate from the peer
	}
	view, err := View(d, np)
	if err != nil {
		return err
	}
	if s.receiveOnly {
		if np.State() == "active" {
			p.renew(&peerState{Peer: np, view: view})
		} else {
			p.end()
		}
		return nil
	}
	queue, err := PeerQueue(d, np, view, s.cfg.QueuePattern)
	if err != nil {
		return err
	}
	if !s.cfg.AllQueues {
		queue.Queues = queue.Queues[:1]
	}
	if np.Deactivated != "" {
		if err := s.release(ctx, p, queue); err != nil {
			return err
		}
		p.stopDrainers() // they may have an older view
		s.startDrainers(ctx, connCtx, p, view, queue.Queues)
		return nil
	}
	p.moved.Load().apply(np)
	if np.StompErr != nil {
		log.Warn("nothing can be sent to the peer until it sends a new info-bundle", "err", np.StompErr)
	} else if err := np.Stomp.BundleURLsErr; err != nil {
		log.Warn("the peer may not be found again when it moves", "err", err)
	}
	if old := p.state.Load(); old == nil || !equalQueue(old.queue, queue) || p.redeclare {
		if err := s.declare(ctx, p, queue); err != nil {
			return err
		}
		p.redeclare = false
	}
	if !np.Active {
		switch err := d.MarkActive(p.id); {
		case err == nil:
			log.Info("peer is active")
		case readOnly(err):
			log.Warn("the node's directory is read-only: the peer is served, but not marked ACTIVE there", "err", err)
		default:
			return err
		}
		np.Active = true
	}
	p.stopDrainers() // deactivation is for good, but who takes it back means it
	p.renew(&peerState{Peer: np, view: view, queue: queue})
	s.startSenders(ctx, connCtx, p, queue.Queues)
	return nil
}
