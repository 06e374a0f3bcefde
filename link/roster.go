package link

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"peerlink/broker"
	"peerlink/node"
	"peerlink/smp"
)

// roster is the set of peers as the node's directory had it at the last scan.
type roster struct {
	maxRate int // of each peer
	mu      sync.Mutex
	peers   map[string]*peer
}

// peer is one registered peer, from when it is first seen until the service ends.
type peer struct {
	id    string
	tally tally
	seen  atomic.Pointer[node.Peer] // as its directory had it last; nil if it never could be read
	gone  atomic.Bool               // its directory is not there any more
	pace  *rate.Limiter             // of the messages that it sends
	state atomic.Pointer[peerState] // nil while there must be no traffic with the peer

	follower follower
	moved    atomic.Pointer[move] // newer than the directory; nil if there is none
	applied  *move                // what moved was at the last scan

	mu       sync.Mutex // guards what follows
	changed  chan struct{}
	call     chan struct{}                    // see called
	senders  map[string]context.CancelFunc    // by queue: what stops its sender
	drainers map[string]context.CancelFunc    // by queue, once the peer is deactivated: what stops its drainer
	conns    map[*receiver]context.CancelFunc // accepted connections
	stamp    node.Stamp
	trouble  string // the last problem reported, so as not to report it at each scan
	missing  int    // scans in a row that did not find the peer's directory
}

// peerState is what is needed for traffic with a peer. It is never changed, but
// replaced as a whole.
type peerState struct {
	*node.Peer
	view  smp.View
	queue broker.PeerQueue
	terms terms
}

// maxMissing is how many scans in a row may miss a peer's directory before its
// traffic ends: replacing a whole tree, as git and Kubernetes do, takes a moment.
const maxMissing = 3

func newRoster(maxRate int) *roster {
	return &roster{maxRate: maxRate, peers: make(map[string]*peer)}
}

func (r *roster) get(id string) *peer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.peers[id]
}

func (r *roster) getOrAdd(id string) *peer {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.peers[id]
	if p == nil {
		p = &peer{
			id:       id,
			pace:     newPace(r.maxRate),
			changed:  make(chan struct{}),
			call:     make(chan struct{}),
			senders:  make(map[string]context.CancelFunc),
			drainers: make(map[string]context.CancelFunc),
			conns:    make(map[*receiver]context.CancelFunc),
		}
		r.peers[id] = p
	}
	return p
}

func (r *roster) all() []*peer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.peers))
}

// set replaces the peer's state and wakes whoever waits for a change.
func (p *peer) set(st *peerState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Store(st)
	close(p.changed)
	p.changed = make(chan struct{})
}

// change returns a channel that is closed when the state is next replaced.
func (p *peer) change() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// end ends all traffic with the peer.
func (p *peer) end() {
	p.set(nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, stop := range p.senders {
		stop()
	}
	clear(p.senders)
	for _, cancel := range p.conns {
		cancel()
	}
}

// watch scans the node's directory now and then until ctx is done.
func (s *Service) watch(ctx, connCtx context.Context) {
	tick := time.NewTicker(s.cfg.PollInterval)
	defer tick.Stop()
	trouble := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch changed, err := s.cfg.Certificate.Reload(); {
		case err != nil:
			s.log.Error("the last good server certificate stays in use", "err", err)
		case changed:
			s.log.Info("new server certificate", "not_after", s.cfg.Certificate.serverChain().Leaf.NotAfter)
		}
		err := s.scan(ctx, connCtx)
		s.followDue(ctx)
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

// scan brings the roster up to date with the node's directory.
func (s *Service) scan(ctx, connCtx context.Context) error {
	ids, err := s.cfg.Dir.PeerIDs()
	if err != nil {
		return err
	}
	there := make(map[string]bool, len(ids))
	for _, id := range ids {
		there[id] = true
		s.scanPeer(ctx, connCtx, s.roster.getOrAdd(id))
	}
	for _, p := range s.roster.all() {
		if there[p.id] {
			p.missing = 0
			p.gone.Store(false)
			continue
		}
		if p.missing++; p.missing == maxMissing && p.state.Load() != nil {
			s.log.Warn("peer is gone from the node's directory, its link ends", "peer", p.id)
			p.stamp = node.Stamp{}
			p.gone.Store(true)
			p.end()
		}
	}
	return nil
}

// scanPeer brings one peer up to date.
func (s *Service) scanPeer(ctx, connCtx context.Context, p *peer) {
	stamp, moved := s.cfg.Dir.Stamp(p.id), p.moved.Load()
	if stamp == p.stamp && moved == p.applied {
		return
	}
	log := s.log.With("peer", p.id)
	if err := s.updatePeer(ctx, connCtx, p); err != nil {
		// Tried again at each scan, told once.
		if err.Error() != p.trouble && ctx.Err() == nil {
			p.trouble = err.Error()
			p.tally.note(err)
			log.Error("peer can not be brought up to date, its link stays as it is", "err", err)
		}
		return
	}
	p.stamp, p.applied, p.trouble = stamp, moved, ""
}

func (s *Service) updatePeer(ctx, connCtx context.Context, p *peer) error {
	log := s.log.With("peer", p.id)
	d := s.cfg.Dir
	old := p.state.Load()
	date, err := d.Deactivated(p.id)
	if err != nil {
		return err
	}
	if date != "" && old != nil {
		// Whatever else is wrong with the peer's files, its traffic ends.
		log.Warn("peer has been deactivated, its link ends", "date", date)
		p.end()
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
		if err := s.cfg.Broker.Release(ctx, queue); err != nil {
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
	if old == nil || !equalQueue(old.queue, queue) {
		if err := s.cfg.Broker.Declare(ctx, queue); err != nil {
			return err
		}
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

// startSenders starts a sender for each queue that has none. The number of a
// peer's queues only grows; a queue that is not used any more is still emptied.
func (s *Service) startSenders(ctx, connCtx context.Context, p *peer, queues []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, queue := range queues {
		if p.senders[queue] != nil {
			continue
		}
		sendCtx, stop := context.WithCancel(ctx)
		p.senders[queue] = stop
		sd := s.newSender(p, queue)
		s.wg.Go(func() { sd.run(sendCtx, connCtx) })
	}
}

func equalQueue(a, b broker.PeerQueue) bool {
	return a.Exchange == b.Exchange && a.Fanout == b.Fanout && a.BindingKey == b.BindingKey && slices.Equal(a.Queues, b.Queues)
}
