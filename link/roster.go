package link

import (
	"context"
	"maps"
	"slices"
	"sync"
)

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
