package link

import (
	"context"
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

// setState replaces the peer's state and wakes whoever waits for a change.
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

// release ends all traffic with the peer.
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
