package link

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"peerlink/internal/pendingconns"
	"peerlink/node/pki"
)

// handshakeLimiter bounds the TLS handshakes of accepted connections: how many begin
// per second, and how many are running at once. A client is not authenticated until its
// handshake is complete, and a handshake costs this node a signature as soon as the
// ClientHello is received. Connections beyond the bounds wait. Sources are served in
// round-robin order, so that a flood from one source delays the others by a single
// handshake; some slots are reserved for sources that have few handshakes. Behind a
// load balancer, all clients may have one address and share the slots. Therefore a
// handshake whose client does not answer is ended in favour of a waiting connection,
// the oldest first.
type handshakeLimiter struct {
	handshakeLimits
	rateLimiter *rate.Limiter

	mu             sync.Mutex
	sources        map[netip.Prefix]*source // sources with running or waiting handshakes
	roundRobin     []*source                // sources with waiting connections, the next one first
	running        int
	waitingCount   int
	awaitingClient []*handshake // running handshakes that wait for the client, in the order in which they began to wait
	timer          *time.Timer  // calls startNext; nil unless a call is scheduled
	timerAt        time.Time    // when timer calls startNext
}

// handshakeLimits are the bounds of a handshakeLimiter. None may be 0.
type handshakeLimits struct {
	maxRunning int           // running handshakes
	reserved   int           // slots reserved for sources with fewer running handshakes than this
	maxWaiting int           // waiting connections
	perSecond  int           // handshakes begun per second
	grace      time.Duration // how long a client may take to answer, even if connections wait
}

// source is the origin of connections, see [pendingconns.SourceOf].
type source struct {
	prefix  netip.Prefix
	running int
	waiting []*handshake
	queued  bool // the source is in handshakeLimiter.roundRobin
}

// handshake is a connection whose handshake waits or runs.
type handshake struct {
	limiter *handshakeLimiter
	source  *source
	conn    net.Conn
	begin   chan bool // receives true when the handshake may begin, false when the connection is rejected

	// Guarded by the limiter's mu.
	running       bool
	awaitingSince time.Time // when this node has sent its part
}

// errTooMany is returned for a connection that exceeds a bound.
var errTooMany = errors.New("too many connections at once")

func newHandshakeLimiter(l handshakeLimits) *handshakeLimiter {
	return &handshakeLimiter{
		handshakeLimits: l,
		rateLimiter:     rate.NewLimiter(rate.Limit(l.perSecond), l.maxRunning),
		sources:         make(map[netip.Prefix]*source),
	}
}

// acquire waits until a connection may begin its handshake. The caller must call release
// of the result at least once. The error is errTooMany or that of ctx.
func (l *handshakeLimiter) acquire(ctx context.Context, conn net.Conn) (*handshake, error) {
	h := &handshake{limiter: l, conn: conn, begin: make(chan bool, 1)}
	l.mu.Lock()
	s := l.sourceLocked(pendingconns.SourceOf(conn.RemoteAddr()))
	h.source = s
	s.waiting = append(s.waiting, h)
	l.waitingCount++
	l.queue(s)
	l.startNext()
	if l.waitingCount > l.handshakeLimits.maxWaiting {
		l.rejectOne(s)
	}
	l.mu.Unlock()

	select {
	case ok := <-h.begin:
		if !ok {
			return nil, errTooMany
		}
	case <-ctx.Done():
		if l.cancelWaiting(h) {
			return nil, ctx.Err()
		}
		// The handshake was started or rejected at the same moment.
		if ok := <-h.begin; !ok {
			return nil, errTooMany
		}
	}
	return h, nil
}

func (l *handshakeLimiter) sourceLocked(prefix netip.Prefix) *source {
	s := l.sources[prefix]
	if s == nil {
		s = &source{prefix: prefix}
		l.sources[prefix] = s
	}
	return s
}

// queue appends a source with waiting connections to the round-robin list. The caller
// holds mu.
func (l *handshakeLimiter) queue(s *source) {
	if !s.queued && len(s.waiting) > 0 {
		s.queued = true
		l.roundRobin = append(l.roundRobin, s)
	}
}

// startNext starts the handshakes that may begin now. If the time of the next one is
// known, it schedules a call of itself; otherwise it is called again when the running
// handshakes change. The caller holds mu.
func (l *handshakeLimiter) startNext() {
	for len(l.roundRobin) > 0 {
		i := slices.IndexFunc(l.roundRobin, l.hasSlot)
		if i < 0 {
			if wait, ok := l.evictOne(); !ok {
				return
			} else if wait > 0 {
				l.startNextAfter(wait)
				return
			}
			continue
		}
		if !l.rateLimiter.Allow() {
			l.startNextAfter(time.Second / time.Duration(l.perSecond))
			return
		}
		s := l.roundRobin[i]
		l.roundRobin, s.queued = slices.Delete(l.roundRobin, i, i+1), false
		h := s.waiting[0]
		s.waiting = s.waiting[1:]
		l.waitingCount--
		h.running = true
		l.running++
		s.running++
		h.begin <- true
		l.queue(s)
	}
}

// hasSlot reports whether there is a slot for one more handshake of the source.
func (l *handshakeLimiter) hasSlot(s *source) bool {
	if s.running < l.reserved {
		return l.running < l.maxRunning
	}
	return l.running < l.maxRunning-l.reserved
}

// evictOne ends one handshake that waits for its client. Of the sources with such
// handshakes, it chooses one with the most running handshakes, and there the handshake
// that has waited longest. If the grace time of that handshake is not over, evictOne
// returns the remaining time instead. ok is false if no handshake waits for its client.
func (l *handshakeLimiter) evictOne() (wait time.Duration, ok bool) {
	var victim *handshake
	for _, h := range l.awaitingClient {
		if victim == nil || h.source.running > victim.source.running {
			victim = h
		}
	}
	if victim == nil {
		return 0, false
	}
	if left := l.grace - time.Since(victim.awaitingSince); left > 0 {
		return left, true
	}
	l.end(victim)
	victim.conn.Close()
	return 0, true
}

// startNextAfter schedules a call of startNext after d, unless an earlier call is
// scheduled already.
func (l *handshakeLimiter) startNextAfter(d time.Duration) {
	at := time.Now().Add(d)
	if l.timer != nil {
		if !at.Before(l.timerAt) {
			return
		}
		l.timer.Stop() // if it has fired already, one call is superfluous
	}
	l.timerAt = at
	var timer *time.Timer
	timer = time.AfterFunc(d, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.timer == timer {
			l.timer = nil
		}
		l.startNext()
	})
	l.timer = timer
}

// rejectOne rejects the latest waiting connection of one source: of last, the source of
// the connection that has arrived last, if it has more than its share of the waiting
// connections, and otherwise of the source that has the most.
func (l *handshakeLimiter) rejectOne(last *source) {
	most := last
	if len(last.waiting) <= l.waitingCount/len(l.sources) {
		for _, s := range l.sources {
			if len(s.waiting) > len(most.waiting) {
				most = s
			}
		}
	}
	i := len(most.waiting) - 1
	most.waiting[i].begin <- false
	most.waiting = most.waiting[:i]
	l.waitingCount--
	l.forget(most)
}

// cancelWaiting removes a waiting connection, and reports whether it was still waiting.
func (l *handshakeLimiter) cancelWaiting(h *handshake) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(h.source.waiting, h)
	if i < 0 {
		return false
	}
	h.source.waiting = slices.Delete(h.source.waiting, i, i+1)
	l.waitingCount--
	l.forget(h.source)
	return true
}

// markAwaitingClient records that this node has sent its part of the handshake and waits
// for the client. Further calls do nothing.
func (h *handshake) markAwaitingClient() {
	l := h.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if !h.running || !h.awaitingSince.IsZero() {
		return
	}
	h.awaitingSince = time.Now()
	l.awaitingClient = append(l.awaitingClient, h)
	l.startNext()
}

// release frees the slot of the handshake. Further calls do nothing.
func (h *handshake) release() {
	l := h.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.running {
		l.end(h)
		l.startNext()
	}
}

// evicted reports whether the handshake was ended in favour of another one. It must be
// called before release.
func (h *handshake) evicted() bool {
	h.limiter.mu.Lock()
	defer h.limiter.mu.Unlock()
	return !h.running
}

// end frees the slot of a running handshake. The caller holds mu.
func (l *handshakeLimiter) end(h *handshake) {
	h.running = false
	l.running--
	h.source.running--
	if i := slices.Index(l.awaitingClient, h); i >= 0 {
		l.awaitingClient = slices.Delete(l.awaitingClient, i, i+1)
	}
	l.forget(h.source)
}

// forget removes a source from the round-robin list if none of its connections waits,
// and also from the map if none of its handshakes is running either.
func (l *handshakeLimiter) forget(s *source) {
	if len(s.waiting) > 0 {
		return
	}
	if s.queued {
		s.queued = false
		l.roundRobin = slices.DeleteFunc(l.roundRobin, func(t *source) bool { return t == s })
	}
	if s.running == 0 {
		delete(l.sources, s.prefix)
	}
}

// verifySemaphore lets as many chains of client certificates be verified at once as
// there are processors. Chains with the root key of a known peer take precedence.
type verifySemaphore struct {
	mu             sync.Mutex
	free           int
	known, unknown []chan struct{} // waiting calls, in order of arrival
}

func newVerifySemaphore() *verifySemaphore { return &verifySemaphore{free: runtime.GOMAXPROCS(0)} }

// acquire waits for a slot. known means that the chain has the root key of a known peer. The
// caller must call release to free the slot.
func (v *verifySemaphore) acquire(known bool) (release func()) {
	v.mu.Lock()
	if v.free > 0 {
		v.free--
		v.mu.Unlock()
		return v.release
	}
	turn := make(chan struct{})
	if known {
		v.known = append(v.known, turn)
	} else {
		v.unknown = append(v.unknown, turn)
	}
	v.mu.Unlock()
	<-turn
	return v.release
}

func (v *verifySemaphore) release() {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case len(v.known) > 0:
		close(v.known[0])
		v.known = v.known[1:]
	case len(v.unknown) > 0:
		close(v.unknown[0])
		v.unknown = v.unknown[1:]
	default:
		v.free++
	}
}

// showsKnownPeer reports whether the client has sent the root public key of an active peer,
// with the name of that peer. The key and the name are public, so they prove nothing
// before the chain is verified.
func (a *acceptor) showsKnownPeer(cs tls.ConnectionState) bool {
	certs := cs.PeerCertificates
	if len(certs) < 2 {
		return false
	}
	id, err := pki.IdentityOf(certs[0].RawSubject)
	if err != nil {
		return false
	}
	p := a.peers.get(id.ID)
	if p == nil {
		return false
	}
	st := p.state.Load()
	return st != nil && bytes.Equal(st.Root.RawSubjectPublicKeyInfo, certs[1].RawSubjectPublicKeyInfo)
}
