package link

import (
	"bytes"
	"context"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"peerlink/broker"
	"peerlink/node"
	"peerlink/smp"
)

// peer is one registered peer, from when it is first seen until the service ends.
type peer struct {
	id             string
	stats          peerStats
	seen           atomic.Pointer[node.Peer] // as its directory had it last; nil if it never could be read
	gone           atomic.Bool               // its directory is not there any more
	messageLimiter *rate.Limiter             // of the messages that it sends
	state          atomic.Pointer[peerState] // nil while there must be no traffic with the peer

	follower   follower
	size       packetSizeWatch
	rotation   *connRotation
	relocation atomic.Pointer[relocation] // newer than the directory; nil if there is none

	// What follows belongs to the goroutine that scans.
	stamp   node.Stamp  // of the directory, when the peer was last brought up to date
	applied *relocation // what moved was then
	trouble string      // the last problem reported, so as not to report it at each scan
	missing int         // scans in a row that did not find the peer's directory
	// rebind makes the next look at the peer declare its queues, known or not.
	rebind  bool
	bindJob *bindJob // the last one for the peer, until its result has been used

	mu            sync.Mutex // guards what follows
	stateReplaced chan struct{}
	connected     chan struct{}                    // see called
	senders       map[string]context.CancelFunc    // by queue: what stops its sender
	drainers      map[string]context.CancelFunc    // by queue, once the peer is deactivated: what stops its drainer
	conns         map[*receiver]context.CancelFunc // accepted connections
}

// peerState is what is needed for traffic with a peer. It is never changed, but
// replaced as a whole.
type peerState struct {
	*node.Peer
	view       smp.View
	queue      broker.PeerQueue
	generation generation
}

// setState replaces the peer's state and wakes the goroutines that wait for a change.
func (p *peer) setState(st *peerState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Store(st)
	close(p.stateReplaced)
	p.stateReplaced = make(chan struct{})
}

// nextState returns a channel that is closed when the state is next replaced.
func (p *peer) nextState() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stateReplaced
}

// end ends all traffic with the peer.
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

// generation live as long as a peer's state says the same about who the peer is,
// which messages are for it, and where and how to send them. A connection that
// was opened on other terms ends in good order, and another one follows.
type generation struct {
	context.Context
	end context.CancelFunc
}

func newGeneration() generation {
	ctx, end := context.WithCancel(context.Background())
	return generation{ctx, end}
}

// replaceState replaces the peer's state by one with which there is traffic.
func (p *peer) replaceState(st *peerState) {
	endOld := st.inheritGeneration(p.state.Load())
	p.setState(st)
	endOld()
}

// inheritGeneration gives st the terms of the state before it where these are still the
// same. Otherwise it returns what ends the old ones, to be called once st has
// replaced the old state.
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
	// A manifest that can not be read any more is no reason to cut a connection
	// that works.
	sameStomp := next.Stomp == nil || reflect.DeepEqual(st.Stomp, next.Stomp)
	return sameStomp && st.view == next.view &&
		bytes.Equal(st.Root.Raw, next.Root.Raw) && bytes.Equal(st.SubCA.Raw, next.SubCA.Raw)
}

// peerSet is the set of peers as the node's directory had it at the last scan.
type peerSet struct {
	maxRate int // of each peer
	mu      sync.Mutex
	peers   map[string]*peer
}

func newPeerSet(maxRate int) *peerSet {
	return &peerSet{maxRate: maxRate, peers: make(map[string]*peer)}
}

func (r *peerSet) get(id string) *peer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.peers[id]
}

func (r *peerSet) getOrAdd(id string) *peer {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.peers[id]
	if p == nil {
		p = &peer{
			id:             id,
			messageLimiter: newMessageLimiter(r.maxRate),
			rotation:       newConnRotation(),
			stateReplaced:  make(chan struct{}),
			connected:      make(chan struct{}),
			senders:        make(map[string]context.CancelFunc),
			drainers:       make(map[string]context.CancelFunc),
			conns:          make(map[*receiver]context.CancelFunc),
		}
		r.peers[id] = p
	}
	return p
}

func (r *peerSet) all() []*peer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.peers))
}

// A peer that could not be reached is tried again after pauses of up to a minute. When
// it is back, it dials us, often before the pause is over: then there is nothing
// to wait for. (A peer that answers, and then refuses or fails, has had its
// chance: if its calls ended a pause, two nodes in trouble would keep each other
// from resting.)

// nextConnect returns a channel that is closed when the peer next connects to us.
func (p *peer) nextConnect() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.connected
}

// notifyConnect wakes the goroutines that wait for the peer to connect.
func (p *peer) notifyConnect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.connected)
	p.connected = make(chan struct{})
}
