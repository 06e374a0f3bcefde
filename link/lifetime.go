package link

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"peerlink/internal/logthrottle"
	"peerlink/internal/wait"
)

// A connection lasts no longer than each of the certificates that opened it:
// those that this side has shown, those that the other side has shown, and the
// root certificate that they lead to. TLS looks at them once, when the connection
// is made; without this, an attacker who has stolen a server key could go on for as long
// as a connection holds.

// maxClockInterval is the longest time between two looks at the clock. A timer
// does not go on while the machine sleeps, and does not notice that the clock
// has been set.
const maxClockInterval = 10 * time.Second

// certificateExpired is why a connection ends whose certificate has ended.
type certificateExpired struct {
	role     string // one of those of [Expiry]
	notAfter time.Time
}

func (e *certificateExpired) Error() string {
	return fmt.Sprintf("%s has ended at %s", certificateName(e.role, "this node's", "the peer's"), e.notAfter.UTC().Format(time.RFC3339))
}

// toPeer says the same to the other side.
func (e *certificateExpired) toPeer() string {
	return fmt.Sprintf("%s has ended at %s: connect again with certificates that are valid.",
		certificateName(e.role, "The other side's", "Your"), e.notAfter.UTC().Format(time.RFC3339))
}

// certificateName describes a certificate by its role.
func certificateName(role, own, peers string) string {
	switch role {
	case "server":
		return own + " server certificate"
	case "root":
		return own + " root certificate"
	case "peer_server":
		return peers + " server certificate"
	case "peer_root":
		return peers + " root certificate"
	case "issued":
		return peers + " peer certificate (issued by this node)"
	default:
		return own + " peer certificate (issued by the peer)"
	}
}

// dialedWith are the certificates that have opened a connection to a peer's
// server: those that this node has shown, and the verified chain of the peer.
func dialedWith(own *x509.Certificate, subCA *x509.Certificate, chain []*x509.Certificate) []usedCertificate {
	return []usedCertificate{{"server", own}, {"received", subCA}, {"peer_server", chain[0]}, {"peer_root", chain[len(chain)-1]}}
}

// acceptedWith are the certificates that have opened a connection from a peer.
func acceptedWith(own *x509.Certificate, chain []*x509.Certificate) []usedCertificate {
	list := []usedCertificate{{"server", own}, {"peer_server", chain[0]}, {"root", chain[len(chain)-1]}}
	for _, issued := range chain[1 : len(chain)-1] {
		list = append(list, usedCertificate{"issued", issued})
	}
	return list
}

// firstExpired returns the certificate that ends first, and why a connection that
// needs all of them has ended by now, if it has.
func firstExpired(list []usedCertificate, now time.Time) (first usedCertificate, ended *certificateExpired) {
	first = slices.MinFunc(list, func(a, b usedCertificate) int { return a.cert.NotAfter.Compare(b.cert.NotAfter) })
	if now.After(first.cert.NotAfter) {
		ended = &certificateExpired{first.role, first.cert.NotAfter}
	}
	return first, ended
}

// canDial reports what keeps this node from dialing a peer: a certificate that has
// ended by this node's clock. The peer's clock may be another, and it would take
// the connection, which then had to end at once.
func (s *Service) canDial(st *peerState) error {
	own := s.cfg.Certificate.serverChain().Leaf
	if _, ended := firstExpired([]usedCertificate{{"server", own}, {"received", st.SubCA}}, s.cfg.Now()); ended != nil {
		return ended
	}
	return nil
}

// onExpiry calls end as soon as one of the certificates has ended by the clock
// of the service, unless forget is called before.
func (s *Service) onExpiry(list []usedCertificate, end func(*certificateExpired)) (forget func()) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for {
			now := s.cfg.Now()
			first, ended := firstExpired(list, now)
			if ended != nil {
				end(ended)
				return
			}
			// Of centuries, Sub makes the longest Duration there is.
			left := min(first.cert.NotAfter.Sub(now), 10*s.cfg.PollInterval, maxClockInterval)
			if wait.Sleep(ctx, left+time.Millisecond) != nil {
				return
			}
		}
	}()
	return cancel
}

// logExpired writes into the log that a connection ends with a certificate.
func (s *Service) logExpired(log *slog.Logger, peerID string, e *certificateExpired) {
	s.logLimiter.Log(log, slog.LevelWarn, logthrottle.Key{Who: peerID, Kind: "certificate ended"}, "a certificate of the connection has ended, so the connection ends",
		"certificate", e.role, "not_after", e.notAfter.UTC(), "what_to_do", advice(e.role))
}
