package link

import (
	"slices"
	"time"

	"peerlink/node"
)

// peersPerPoll is the number of peers whose files are looked at in each poll. Up to this number of
// peers, each poll looks at all of them. With more, the others are looked at in the following polls,
// unless the operating system reports that their files have changed. At rest, with 5,000 peers that
// can not be reached, that takes a seventh of the processor time (BenchmarkUnreachablePeers).
const peersPerPoll = 200

// sweep chooses the peers that are reconciled in each poll.
type sweep struct {
	peersPerPoll int
	ids          []string        // of the peers in the node's directory, sorted
	listed       bool            // ids is up to date, unless a change is reported
	all          bool            // all peers are looked at in the next poll
	next         int             // index in ids of the peer that is looked at next
	watcher      *node.Watcher   // nil: all peers are looked at in each poll, or changes are not reported
	watched      map[string]bool // IDs of the peers of which changes are reported
	unwatchable  bool            // it has been logged that changes are not reported
}

// changes returns what has changed since the last poll, as far as that is reported.
func (s *sweep) changes() node.Changes {
	switch {
	case s.watcher == nil:
		return node.Changes{}
	case s.watcher.Replaced():
		s.close()
		return node.Changes{All: true}
	}
	return s.watcher.Changes()
}

// close ends the watching of the node's directory.
func (s *sweep) close() {
	if s.watcher != nil {
		s.watcher.Close()
	}
	s.watcher, s.watched, s.unwatchable = nil, nil, false
}

// peersToReconcile returns the IDs of the peers to reconcile in this poll: those that have changed,
// those with which the last reconciliation was not completed, and the next ones of the others.
func (r *reconciler) peersToReconcile() ([]string, error) {
	s := &r.sweep
	changes := s.changes()
	s.all = s.all || changes.All
	for id := range changes.Peers {
		delete(s.watched, id) // its folders may be others now
	}
	if s.watcher == nil || s.all || len(changes.Peers) > 0 || !s.listed || s.next >= len(s.ids) {
		if err := r.listPeers(); err != nil {
			s.all = true // these changes are not reported again
			return nil, err
		}
	}
	r.watchPeers()
	if s.all || len(s.ids) <= s.peersPerPoll {
		s.all = false
		return s.ids, nil
	}
	if s.next >= len(s.ids) {
		s.next = 0
	}
	end := min(s.next+s.peersPerPoll, len(s.ids))
	due := slices.Clone(s.ids[s.next:end])
	s.next = end
	for _, id := range s.ids {
		if changes.Peers[id] || r.peers.getOrAdd(id).incomplete() {
			due = append(due, id)
		}
	}
	slices.Sort(due)
	return slices.Compact(due), nil
}

// incomplete reports whether the peer has to be reconciled although its files may be unchanged.
func (p *peer) incomplete() bool {
	return p.stamp == nil || p.successor != "" || p.bindJob != nil || p.pendingUpdate.Load() != p.appliedUpdate
}

// listPeers reads which peers the node's directory contains now, and ends the traffic with those that
// it does not contain any more.
func (r *reconciler) listPeers() error {
	s := &r.sweep
	s.listed = false
	ids, err := r.cfg.Dir.PeerIDs()
	if err != nil {
		return err
	}
	s.ids = slices.DeleteFunc(ids, func(id string) bool { return !r.cfg.Dir.HasPeer(id) })
	s.listed = len(s.ids) == len(ids) // a folder without a peer's files may be one that is being made
	for _, p := range r.peers.all() {
		if _, present := slices.BinarySearch(s.ids, p.id); present {
			p.missing = 0
			p.gone.Store(false)
			continue
		}
		if p.missing++; p.missing == maxMissing {
			r.peerGone(p)
		}
		if p.missing < maxMissing {
			s.listed = false
		}
	}
	return nil
}

// watchPeers makes the operating system report changes of the peers' files, if there are so many
// peers that not all of them are looked at in each poll.
func (r *reconciler) watchPeers() {
	s := &r.sweep
	if len(s.ids) <= s.peersPerPoll {
		s.close()
		return
	}
	if s.unwatchable && s.watcher == nil {
		return
	}
	var err error
	if s.watcher == nil {
		if s.watcher, err = r.cfg.Dir.Watch(); err == nil {
			s.watched = make(map[string]bool, len(s.ids))
		}
	}
	for _, id := range s.ids {
		if err != nil {
			break
		}
		if !s.watched[id] {
			if err = s.watcher.Add(id); err == nil {
				s.watched[id] = true
			}
		}
	}
	if err != nil && !s.unwatchable {
		s.unwatchable = true
		polls := (len(s.ids) + s.peersPerPoll - 1) / s.peersPerPoll
		r.log.Info("the operating system does not report all changes of peers' files: some are noticed later", "err", err, "within", time.Duration(polls)*r.cfg.PollInterval)
	}
}
