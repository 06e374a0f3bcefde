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
	// maxLargeHellos is how many consecutive attempts may time out before one is made
	// without a post-quantum key exchange. A post-quantum key share enlarges the
	// ClientHello to some 1,500 bytes. Some networks drop packets of that size, not
	// always with an ICMP error.
	maxLargeHellos = 2
	// classicalFor is how long a path is assumed to drop large packets after an attempt
	// without them has succeeded.
	classicalFor = time.Hour
)

// classical lists the key exchanges that need small packets only.
var classical = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384}

// packetSizeWatch detects whether the path to a peer drops large packets.
type packetSizeWatch struct {
	mu       sync.Mutex
	timeouts int       // consecutive attempts that timed out
	until    time.Time // when the post-quantum key exchange is offered again
}

// groups returns the key exchanges to offer in the next attempt, nil for all. While all
// attempts time out, both kinds are offered by turns.
func (s *packetSizeWatch) groups(now time.Time) []tls.CurveID {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Before(s.until) || s.timeouts > 0 && s.timeouts%(maxLargeHellos+1) == maxLargeHellos {
		return classical
	}
	return nil
}

// note records the result of an attempt with these groups. It reports whether this
// attempt has shown that large packets were the cause of timeouts.
func (s *packetSizeWatch) note(groups []tls.CurveID, err error, now time.Time) (found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(err, errNoHandshake):
		s.timeouts++
		s.until = time.Time{}
	case err != nil: // the error is unrelated to the size
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
