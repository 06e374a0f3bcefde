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

	"peerlink/node/pki"
)

// handshakeLimiter bounds the TLS handshakes of accepted connections. A client
// is a stranger until its handshake has ended, and a handshake costs this node a
// signature as soon as the ClientHello has come. So the limiter bounds how many
// handshakes begin in a second and how many go on at once. Beyond that
// connections wait. The sources take turns, so that a flood from one source
// makes the others wait for a single handshake; a part of the places is kept for
// sources that have few. Behind a load balancer all clients have one address:
// there the places are shared, and a handshake whose client does not answer
// gives its place up to one that waits, the oldest first.
type handshakeLimiter struct {
	handshakeLimits
	limiter *rate.Limiter

	mu         sync.Mutex
	sources    map[netip.Prefix]*source // those with handshakes that go on or wait
	roundRobin []*source                // those with connections that wait, the next one first
	running    int
	waiting    int
	answered   []*handshake // those that go on and wait for the client, the longest first
	later      *time.Timer  // not nil while connections wait for a moment that is known
}

// handshakeLimits are the bounds of a handshakeLimiter. None may be 0.
type handshakeLimits struct {
	atOnce    int           // handshakes that go on at once
	reserved  int           // places of these for sources that have fewer than this
	waiting   int           // connections that wait
	perSecond int           // handshakes that begin in a second
	grace     time.Duration // for which a client may take to answer, however many wait
}

// source is where connections come from.
type source struct {
	prefix  netip.Prefix
	running int
	waiting []*handshake
	queued  bool // it is in handshakeLimiter.roundRobin
}

// handshake is a connection in the limiter.
type handshake struct {
	limiter *handshakeLimiter
	source  *source
	conn    net.Conn
	begin   chan bool // gets true when the handshake may begin, false when it may not

	// Guarded by the limiter's mu.
	running    bool
	answeredAt time.Time // when this node has sent its part
}

// errTooMany is returned for a connection that there is no room for.
var errTooMany = errors.New("too many connections at once")

func newHandshakeLimiter(l handshakeLimits) *handshakeLimiter {
	return &handshakeLimiter{
		handshakeLimits: l,
		limiter:         rate.NewLimiter(rate.Limit(l.perSecond), l.atOnce),
		sources:         make(map[netip.Prefix]*source),
	}
}

// sourceOf returns what counts as one source: an IPv4 address, or a /64 of IPv6,
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

// acquire waits until a connection may begin its handshake. Afterwards leave must
// be called, once or more often. The error is errTooMany or that of ctx.
func (l *handshakeLimiter) acquire(ctx context.Context, conn net.Conn) (*handshake, error) {
	h := &handshake{limiter: l, conn: conn, begin: make(chan bool, 1)}
	l.mu.Lock()
	s := l.sourceLocked(sourceOf(conn.RemoteAddr()))
	h.source = s
	s.waiting = append(s.waiting, h)
	l.waiting++
	l.queue(s)
	l.startNext()
	if l.waiting > l.handshakeLimits.waiting {
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
		// It was admitted or refused just now.
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

// queue gives a source with connections that wait its turn, behind the others.
func (l *handshakeLimiter) queue(s *source) {
	if !s.queued && len(s.waiting) > 0 {
		s.queued = true
		l.roundRobin = append(l.roundRobin, s)
	}
}

// startNext begins the handshakes that may begin now, and arranges for the others to
// be looked at again where the moment is known. Otherwise a change of the
// running handshakes calls it.
func (l *handshakeLimiter) startNext() {
	for len(l.roundRobin) > 0 {
		i := slices.IndexFunc(l.roundRobin, l.hasRoom)
		if i < 0 {
			if wait, ok := l.makeRoom(); !ok {
				return
			} else if wait > 0 {
				l.startNextAfter(wait)
				return
			}
			continue
		}
		if !l.limiter.Allow() {
			l.startNextAfter(time.Second / time.Duration(l.perSecond))
			return
		}
		s := l.roundRobin[i]
		l.roundRobin, s.queued = slices.Delete(l.roundRobin, i, i+1), false
		h := s.waiting[0]
		s.waiting = s.waiting[1:]
		l.waiting--
		h.running = true
		l.running++
		s.running++
		h.begin <- true
		l.queue(s)
	}
}

// hasRoom reports whether one more handshake of the source may go on.
func (l *handshakeLimiter) hasRoom(s *source) bool {
	if s.running < l.reserved {
		return l.running < l.atOnce
	}
	return l.running < l.atOnce-l.reserved
}

// makeRoom ends the handshake that waits longest for its client, of a source
// that has most of them. It returns how long that one has left, if that is not
// over yet, and reports false if none waits for its client.
func (l *handshakeLimiter) makeRoom() (wait time.Duration, ok bool) {
	var victim *handshake
	for _, h := range l.answered {
		if victim == nil || h.source.running > victim.source.running {
			victim = h
		}
	}
	if victim == nil {
		return 0, false
	}
	if left := l.grace - time.Since(victim.answeredAt); left > 0 {
		return left, true
	}
	l.end(victim)
	victim.conn.Close()
	return 0, true
}

// startNextAfter calls admit after a time.
func (l *handshakeLimiter) startNextAfter(d time.Duration) {
	if l.later != nil {
		return
	}
	l.later = time.AfterFunc(d, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.later = nil
		l.startNext()
	})
}

// rejectOne refuses the last of the connections that wait: of newest, unless
// another source has more than its share.
func (l *handshakeLimiter) rejectOne(newest *source) {
	most := newest
	if len(newest.waiting) <= l.waiting/len(l.sources) {
		for _, s := range l.sources {
			if len(s.waiting) > len(most.waiting) {
				most = s
			}
		}
	}
	last := len(most.waiting) - 1
	most.waiting[last].begin <- false
	most.waiting = most.waiting[:last]
	l.waiting--
	l.forget(most)
}

// cancelWaiting takes back a connection that waits, and reports whether it still did.
func (l *handshakeLimiter) cancelWaiting(h *handshake) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(h.source.waiting, h)
	if i < 0 {
		return false
	}
	h.source.waiting = slices.Delete(h.source.waiting, i, i+1)
	l.waiting--
	l.forget(h.source)
	return true
}

// noteAnswered is called when this node has done its part of the handshake and
// waits for the client.
func (h *handshake) noteAnswered() {
	l := h.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if !h.running || !h.answeredAt.IsZero() {
		return
	}
	h.answeredAt = time.Now()
	l.answered = append(l.answered, h)
	l.startNext()
}

// release gives the handshake's place up.
func (h *handshake) release() {
	l := h.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.running {
		l.end(h)
		l.startNext()
	}
}

// evicted reports whether the handshake was ended for another one.
func (h *handshake) evicted() bool {
	h.limiter.mu.Lock()
	defer h.limiter.mu.Unlock()
	return !h.running
}

func (l *handshakeLimiter) end(h *handshake) {
	h.running = false
	l.running--
	h.source.running--
	if i := slices.Index(l.answered, h); i >= 0 {
		l.answered = slices.Delete(l.answered, i, i+1)
	}
	l.forget(h.source)
}

// forget drops what need not be known of a source any more.
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
// there are processors, those that show a known peer's root key before others.
type verifySemaphore struct {
	mu             sync.Mutex
	free           int
	known, unknown []chan struct{} // those that wait, in the order in which they came
}

func newVerifySemaphore() *verifySemaphore { return &verifySemaphore{free: runtime.GOMAXPROCS(0)} }

// acquire waits for a turn. Its end must be called.
func (v *verifySemaphore) acquire(known bool) (end func()) {
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

// showsKnownPeer reports whether the client shows the root key of an active peer
// in that peer's name. Anybody can show it, so that proves nothing yet.
func (s *Service) showsKnownPeer(cs tls.ConnectionState) bool {
	certs := cs.PeerCertificates
	if len(certs) < 2 {
		return false
	}
	id, err := pki.IdentityOf(certs[0].RawSubject)
	if err != nil {
		return false
	}
	p := s.peers.get(id.ID)
	if p == nil {
		return false
	}
	st := p.state.Load()
	return st != nil && bytes.Equal(st.Root.RawSubjectPublicKeyInfo, certs[1].RawSubjectPublicKeyInfo)
}
