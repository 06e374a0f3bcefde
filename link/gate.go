package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A gate lets accepted connections into their TLS handshakes. Whoever connects
// is a stranger until the handshake has ended, and makes this side work for it,
// so the gate bounds how many handshakes go on at once, how many of them are of
// one source, and how many begin in a second. Beyond that connections wait; the
// sources take turns, so a flood from one makes others wait for a single
// handshake, not for all of the flood. Those who wait are bounded too: beyond
// that, a source with more than its share loses the last of them.
type gate struct {
	gateLimits
	pace *rate.Limiter

	mu      sync.Mutex
	sources map[netip.Prefix]*source // those that are inside or wait
	turns   []*source                // those that wait and may go in, the next one first
	running int
	waiting int
	later   *time.Timer // not nil while turns wait for the pace
}

// gateLimits are the bounds of a gate. None may be 0.
type gateLimits struct {
	handshakes int // at once
	perSource  int // of these
	waiting    int // connections
	perSecond  int // handshakes
}

// source is where connections come from.
type source struct {
	prefix  netip.Prefix
	running int
	waiting []chan bool // gets true when it may go in, false when it may not
	queued  bool        // it is in gate.turns
}

// errCrowded is returned for a connection that there is no room for.
var errCrowded = errors.New("too many connections at once")

func newGate(l gateLimits) *gate {
	return &gate{
		gateLimits: l,
		pace:       rate.NewLimiter(rate.Limit(l.perSecond), l.handshakes),
		sources:    make(map[netip.Prefix]*source),
	}
}

// sourceOf tells what counts as one source: an IPv4 address, or a /64 of IPv6,
// which is the least that anybody gets. Other kinds of addresses are all one.
func sourceOf(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	prefix, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// enter waits until a connection may begin its handshake. Afterwards leave must
// be called, once or more often. The error is errCrowded or that of ctx.
func (g *gate) enter(ctx context.Context, addr net.Addr) (leave func(), err error) {
	g.mu.Lock()
	s := g.sourceLocked(sourceOf(addr))
	ticket := make(chan bool, 1)
	s.waiting = append(s.waiting, ticket)
	g.waiting++
	g.queue(s)
	g.admit()
	if g.waiting > g.gateLimits.waiting {
		g.crowdOut(s)
	}
	g.mu.Unlock()

	select {
	case ok := <-ticket:
		if !ok {
			return nil, errCrowded
		}
	case <-ctx.Done():
		if !g.giveUp(s, ticket) {
			return nil, ctx.Err()
		}
		// It has been let in, or out, just now.
		if ok := <-ticket; !ok {
			return nil, errCrowded
		}
	}
	return sync.OnceFunc(func() { g.leave(s) }), nil
}

func (g *gate) sourceLocked(prefix netip.Prefix) *source {
	s := g.sources[prefix]
	if s == nil {
		s = &source{prefix: prefix}
		g.sources[prefix] = s
	}
	return s
}

// queue gives a source its turn, behind the others, if it can make use of one.
func (g *gate) queue(s *source) {
	if !s.queued && len(s.waiting) > 0 && s.running < g.perSource {
		s.queued = true
		g.turns = append(g.turns, s)
	}
}

// admit lets in who may go in now.
func (g *gate) admit() {
	for g.running < g.handshakes && len(g.turns) > 0 {
		s := g.turns[0]
		if !g.pace.Allow() {
			g.admitLater()
			return
		}
		g.turns, s.queued = g.turns[1:], false
		ticket := s.waiting[0]
		s.waiting = s.waiting[1:]
		g.waiting--
		g.running++
		s.running++
		ticket <- true
		g.queue(s)
	}
}

// admitLater goes on when the pace allows the next handshake.
func (g *gate) admitLater() {
	if g.later != nil {
		return
	}
	g.later = time.AfterFunc(time.Second/time.Duration(g.perSecond), func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.later = nil
		g.admit()
	})
}

// crowdOut sends one of those who wait away: the last of newest, unless another
// source has more than its share.
func (g *gate) crowdOut(newest *source) {
	most := newest
	if len(newest.waiting) <= g.waiting/len(g.sources) {
		for _, s := range g.sources {
			if len(s.waiting) > len(most.waiting) {
				most = s
			}
		}
	}
	last := len(most.waiting) - 1
	most.waiting[last] <- false
	most.waiting = most.waiting[:last]
	g.waiting--
	g.forget(most)
}

// giveUp takes a ticket back. If it tells that the ticket was settled already,
// it has to be looked at.
func (g *gate) giveUp(s *source, ticket chan bool) (settled bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(s.waiting, ticket)
	if i < 0 {
		return true
	}
	s.waiting = slices.Delete(s.waiting, i, i+1)
	g.waiting--
	g.forget(s)
	return false
}

func (g *gate) leave(s *source) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	s.running--
	g.queue(s)
	g.forget(s)
	g.admit()
}

// forget drops what there is no need to know of a source any more.
func (g *gate) forget(s *source) {
	if len(s.waiting) > 0 {
		return
	}
	if s.queued {
		s.queued = false
		g.turns = slices.DeleteFunc(g.turns, func(t *source) bool { return t == s })
	}
	if s.running == 0 {
		delete(g.sources, s.prefix)
	}
}
