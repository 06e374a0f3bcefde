package link

import (
	"bytes"
	"context"
	"crypto/x509"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"peerlink/broker"
	"peerlink/internal/wait"
	"peerlink/node"
	"peerlink/smp"
)

// peer is one of the node's peers, from its first appearance in the node's directory until
// the service ends.
type peer struct {
	id             string
	since          time.Time // when it was first seen
	stats          peerStats
	in             tracker                   // what the peer sends
	files          tracker                   // what follows from the node's directory; an empty verdict means that it allows traffic
	quotaFull      condition                 // messages from the peer wait until its quota, or the disk, has space
	throttled      episode                   // the peer sends more than this node accepts per second
	checkNow       wait.Broadcast            // notified when a resting link should be checked soon
	lastContent    atomic.Pointer[node.Peer] // the content of the peer's directory when it was last read; nil if it could never be read
	gone           atomic.Bool               // the peer's directory does not exist any more
	messageLimiter *rate.Limiter             // limits the messages per second from the peer
	unstored       *unstoredLimiter          // limits the messages from the peer that the broker has not stored yet
	state          atomic.Pointer[peerState] // nil while there must be no traffic with the peer

	follower      follower                      // schedules the fetches of the peer's info-bundle
	packetSize    packetSizeWatch               // whether the network loses large packets to the peer
	connTurns     *connTurns                    // lets the queues of the peer take turns if it permits fewer connections
	pendingUpdate atomic.Pointer[pendingUpdate] // newer than the directory's info-bundle; nil: none

	// Used by the reconciling goroutine only.
	stamp         *node.Stamp    // of the directory at the last reconciliation without an error; nil: reconcile again
	former        []string       // names of queues that led to the peer before and had messages when they were unbound
	appliedUpdate *pendingUpdate // pendingUpdate when the peer was last reconciled
	lastErr       string         // the last error reported, so that it is not reported at each poll
	bound         bool           // the queues are bound
	successor     string         // ID of the peer to which the queues of this deactivated one lead; "" if to none
	handedOver    []string       // names of these queues
	missing       int            // consecutive polls that did not find the peer's directory
	// rebind makes the next reconciliation bind the peer's queues even if they are
	// unchanged.
	rebind  bool
	bindJob *bindJob // the last bind job, until its result has been used

	// connected is notified when the peer has connected to this node. A peer that could
	// not be reached is dialed again after pauses of up to a minute. When it is back, it
	// connects to this node, often before the pause is over: then the sender dials at
	// once. (This does not apply to a peer that was reached and then refused or failed:
	// two nodes with faults would keep each other from pausing.)
	connected     wait.Broadcast
	stateReplaced wait.Broadcast // notified when state has been replaced

	mu       sync.Mutex                       // guards what follows
	senders  map[string]context.CancelFunc    // by queue: stops its sender
	drainers map[string]context.CancelFunc    // by queue, once the peer is deactivated: stops its drainer
	conns    map[*receiver]context.CancelFunc // accepted connections
	out      map[string]*tracker              // by queue: what its sender does
	// authenticated is the pinned root certificate with which the peer was authenticated last, in
	// either direction; nil if it was not since the service started.
	authenticated *x509.Certificate
}

// trackOut adds the tracker of a queue's sender. The caller calls remove when the sender ends.
func (p *peer) trackOut(queue string, t *tracker) (remove func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out[queue] = t
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.out[queue] == t {
			delete(p.out, queue)
		}
	}
}

// outTrackers returns the trackers of all senders to the peer.
func (p *peer) outTrackers() []*tracker {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.out))
}

// peerState holds what is needed for traffic with a peer. It is immutable, and replaced
// as a whole.
type peerState struct {
	*node.Peer
	view       smp.View
	binding    broker.PeerBinding // zero in a Service that only receives
	generation generation
}

// setState replaces the peer's state and wakes the senders that wait for a change.
func (p *peer) setState(st *peerState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Store(st)
	p.stateReplaced.Notify()
}

// end ends all traffic with the peer: it removes the state, stops the senders, and ends the
// accepted connections in good order.
func (p *peer) end() {
	p.setState(nil)
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

// generation is a context for the successive states of a peer that agree on the peer's
// identity and its revoked keys, on which messages are for the peer, and on where and how to send them. When
// the generation ends, its connections end in good order, and connections of the next
// generation follow.
type generation struct {
	context.Context
	end context.CancelFunc
}

func newGeneration() generation {
	ctx, end := context.WithCancel(context.Background())
	return generation{ctx, end}
}

// replaceState replaces the peer's state by one that allows traffic.
func (p *peer) replaceState(st *peerState) {
	endOld := st.inheritGeneration(p.state.Load())
	p.setState(st)
	endOld()
}

// inheritGeneration sets the generation of st to that of old if the two states agree.
// Otherwise it sets a new one, and endOld ends that of old. The caller calls endOld
// once st has replaced old.
func (st *peerState) inheritGeneration(old *peerState) (endOld func()) {
	switch {
	case old == nil:
		st.generation = newGeneration()
		return func() {}
	case old.sameGeneration(st):
		st.generation = old.generation
		return func() {}
	}
	st.generation = newGeneration()
	return old.generation.end
}

func (st *peerState) sameGeneration(next *peerState) bool {
	// A stomp.toml that cannot be read any more is no reason to end a connection that
	// works.
	sameStomp := next.Stomp == nil || reflect.DeepEqual(st.Stomp, next.Stomp)
	return sameStomp && st.view == next.view && maps.Equal(st.Revoked, next.Revoked) &&
		bytes.Equal(st.Root.Raw, next.Root.Raw) && bytes.Equal(st.SubCA.Raw, next.SubCA.Raw)
}

// peerSet is the set of peers found in the node's directory.
type peerSet struct {
	maxRate  int // of each peer, see [Config.MaxRate]
	unstored *unstoredLimits
	mu       sync.Mutex
	peers    map[string]*peer
}

func newPeerSet(maxRate int, unstored *unstoredLimits) *peerSet {
	return &peerSet{maxRate: maxRate, unstored: unstored, peers: make(map[string]*peer)}
}

func (s *peerSet) get(id string) *peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peers[id]
}

func (s *peerSet) getOrAdd(id string) *peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[id]
	if p == nil {
		p = &peer{
			id:             id,
			since:          time.Now(),
			messageLimiter: newMessageLimiter(s.maxRate),
			unstored:       s.unstored.limiter(id),
			connTurns:      newConnTurns(),
			senders:        make(map[string]context.CancelFunc),
			drainers:       make(map[string]context.CancelFunc),
			conns:          make(map[*receiver]context.CancelFunc),
			out:            make(map[string]*tracker),
		}
		s.peers[id] = p
	}
	return p
}

func (s *peerSet) remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.peers, id)
}

func (s *peerSet) all() []*peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.peers))
}
