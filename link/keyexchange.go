package link

import (
	"crypto/tls"
	"errors"
	"sync"
	"time"
)

// errNoHandshake means that a TLS handshake was not complete in time.
var errNoHandshake = errors.New("no TLS handshake")

const (
	// maxLargeHellos is how many attempts in a row may end without a handshake
	// before one is made without a post-quantum key exchange. The share of that
	// fills a ClientHello to some 1,500 bytes, which is more than some networks
	// let pass, and they do not always say so.
	maxLargeHellos = 2
	// classicalFor is how long a way is taken for one that loses large packets
	// after an attempt without them has succeeded.
	classicalFor = time.Hour
)

// classical are the groups of key exchanges that need small packets only.
var classical = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384}

// packetSizeWatch remembers whether the way to a peer seems to lose large packets.
type packetSizeWatch struct {
	mu       sync.Mutex
	timeouts int       // attempts in a row without a handshake in time
	until    time.Time // when to offer the post-quantum key exchange again
}

// groups returns the key exchanges to be offered in the next attempt, nil for all.
// While nothing answers, both kinds are tried in turn.
func (s *packetSizeWatch) groups(now time.Time) []tls.CurveID {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Before(s.until) || s.timeouts > 0 && s.timeouts%(maxLargeHellos+1) == maxLargeHellos {
		return classical
	}
	return nil
}

// note takes the result of an attempt with these groups. It reports whether large
// packets have just turned out to be the trouble.
func (s *packetSizeWatch) note(groups []tls.CurveID, err error, now time.Time) (found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(err, errNoHandshake):
		s.timeouts++
		s.until = time.Time{}
	case err != nil: // it says nothing about the size
	case groups == nil:
		s.timeouts = 0
	default:
		found = !now.Before(s.until)
		s.timeouts = 0
		if found {
			s.until = now.Add(classicalFor)
		}
	}
	return found
}
