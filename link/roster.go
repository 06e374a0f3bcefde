package link

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// roster is the set of peers as the node's directory had it at the last scan.
type roster struct {
	maxRate int // of each peer
	mu      sync.Mutex
	peers   map[string]*peer
}

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
			turns:    newTurns(),
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
