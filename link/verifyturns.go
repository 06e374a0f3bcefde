package link

import (
	"bytes"
	"crypto/tls"
	"runtime"
	"sync"

	"peerlink/node/pki"
)

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
