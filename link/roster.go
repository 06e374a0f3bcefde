package link

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"peerlink/broker"
	"peerlink/node"
	"peerlink/smp"
)

// roster is the set of peers as the node's directory had it at the last scan.
type roster struct {
	mu    sync.Mutex
	peers map[string]*peer
}

// peer is one registered peer, from when it is first seen until the service ends.
type peer struct {
	id    string
	state atomic.Pointer[peerState] // nil while there must be no traffic with the peer

	mu      sync.Mutex // guards what follows
	changed chan struct{}
	call    chan struct{}                    // see called
	senders map[string]context.CancelFunc    // by queue: what stops its sender
	conns   map[*receiver]context.CancelFunc // accepted connections
	stamp   node.Stamp
	trouble string // the last problem reported, so as not to report it at each scan
	missing int    // scans in a row that did not find the peer's directory
}

// peerState is what is needed for traffic with a peer. It is never changed, but
// replaced as a whole.
type peerState struct {
	*node.Peer
	view  smp.View
	queue broker.PeerQueue
}

// maxMissing is how many scans in a row may miss a peer's directory before its
// traffic ends: replacing a whole tree, as git and Kubernetes do, takes a moment.
const maxMissing = 3

func newRoster() *roster { return &roster{peers: make(map[string]*peer)} }

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
			id:      id,
			changed: make(chan struct{}),
			call:    make(chan struct{}),
			senders: make(map[string]context.CancelFunc),
			conns:   make(map[*receiver]context.CancelFunc),
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
		switch err := s.scan(ctx, connCtx); {
		case err == nil:
			trouble = ""
		case err.Error() != trouble && ctx.Err() == nil:
			trouble = err.Error()
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
			continue
		}
		if p.missing++; p.missing == maxMissing && p.state.Load() != nil {
			s.log.Warn("peer is gone from the node's directory, its link ends", "peer", p.id)
			p.stamp = node.Stamp{}
			p.end()
		}
	}
	return nil
}

// scanPeer brings one peer up to date.
func (s *Service) scanPeer(ctx, connCtx context.Context, p *peer) {
	stamp := s.cfg.Dir.Stamp(p.id)
	if stamp == p.stamp {
		return
	}
	log := s.log.With("peer", p.id)
	if err := s.updatePeer(ctx, connCtx, p); err != nil {
		// Tried again at each scan, told once.
		if err.Error() != p.trouble && ctx.Err() == nil {
			p.trouble = err.Error()
			log.Error("peer can not be brought up to date, its link stays as it is", "err", err)
		}
		return
	}
	p.stamp, p.trouble = stamp, ""
}

func (s *Service) updatePeer(ctx, connCtx context.Context, p *peer) error {
	log := s.log.With("peer", p.id)
	d := s.cfg.Dir
	np, err := d.Peer(p.id)
	if err != nil {
		return err
	}
	old := p.state.Load()
	if np.SubCA == nil {
		return nil // we wait for the certificate from the peer
	}
	if np.Deactivated != "" {
		// Whatever else is wrong with the peer's files, its traffic ends.
		if old != nil {
			log.Warn("peer has been deactivated, its link ends", "date", np.Deactivated)
		}
		p.end()
	}
	view, err := View(d, np)
	if err != nil {
		return err
	}
	queue, err := PeerQueue(d, np, view, s.cfg.QueuePattern)
	if err != nil {
		return err
	}
	if !s.cfg.AllQueues {
		queue.Queues = queue.Queues[:1]
	}
	if np.Deactivated != "" {
		return s.cfg.Broker.Release(ctx, queue)
	}
	if np.StompErr != nil {
		log.Warn("nothing can be sent to the peer until it sends a new info-bundle", "err", np.StompErr)
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
		case errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS):
			log.Warn("the node's directory is read-only: the peer is served, but not marked ACTIVE there", "err", err)
		default:
			return err
		}
		np.Active = true
	}
	p.set(&peerState{Peer: np, view: view, queue: queue})
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
		sd := &sender{s: s, peer: p, queue: queue, log: s.log.With("peer", p.id, "queue", queue), refused: newRefusals()}
		s.wg.Go(func() { sd.run(sendCtx, connCtx) })
	}
}

func equalQueue(a, b broker.PeerQueue) bool {
	return a.Exchange == b.Exchange && a.Fanout == b.Fanout && a.BindingKey == b.BindingKey && slices.Equal(a.Queues, b.Queues)
}
