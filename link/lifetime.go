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

// A connection lasts no longer than each of the certificates that authenticated it:
// those that this side has sent, those that the other side has sent, and the root
// certificate of the chain. TLS checks their dates once, in the handshake; without
// this, an attacker who has stolen a server key could use a connection for as long as
// it lasts.

// maxClockInterval is the longest time between two checks of the clock. A timer stands
// still while the machine sleeps, and does not follow when the clock is set.
const maxClockInterval = 10 * time.Second

// certificateExpired is the error of a connection that ends because a certificate has
// expired.
type certificateExpired struct {
	role     string // a role of [Expiry]
	notAfter time.Time
}

func (e *certificateExpired) Error() string {
	return fmt.Sprintf("%s has ended at %s", certificateName(e.role, "this node's", "the peer's"), e.notAfter.UTC().Format(time.RFC3339))
}

// toPeer returns the text of the error for the other side.
func (e *certificateExpired) toPeer() string {
	return fmt.Sprintf("%s has ended at %s: connect again with certificates that are valid.",
		certificateName(e.role, "The other side's", "Your"), e.notAfter.UTC().Format(time.RFC3339))
}

// certificateName returns the description of a certificate by its role.
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

// outgoingCertificates returns the certificates that authenticated a connection to a peer's
// server: those that this node has sent, and the verified chain of the peer.
func outgoingCertificates(own *x509.Certificate, subCA *x509.Certificate, chain []*x509.Certificate) []usedCertificate {
	return []usedCertificate{{"server", own}, {"received", subCA}, {"peer_server", chain[0]}, {"peer_root", chain[len(chain)-1]}}
}

// incomingCertificates returns the certificates that authenticated a connection from a peer.
func incomingCertificates(own *x509.Certificate, chain []*x509.Certificate) []usedCertificate {
	list := []usedCertificate{{"server", own}, {"peer_server", chain[0]}, {"root", chain[len(chain)-1]}}
	for _, issued := range chain[1 : len(chain)-1] {
		list = append(list, usedCertificate{"issued", issued})
	}
	return list
}

// firstExpired returns the certificate that expires first. If it has expired by now,
// ended is the error of a connection that needs all of them.
func firstExpired(list []usedCertificate, now time.Time) (first usedCertificate, ended *certificateExpired) {
	first = slices.MinFunc(list, func(a, b usedCertificate) int { return a.cert.NotAfter.Compare(b.cert.NotAfter) })
	if now.After(first.cert.NotAfter) {
		ended = &certificateExpired{first.role, first.cert.NotAfter}
	}
	return first, ended
}

// canDial returns an error if a certificate that this node would send to a peer has
// expired by this node's clock. By the peer's clock it may not have expired: then the
// peer would accept the connection, which would have to end at once.
func (s *shared) canDial(st *peerState) error {
	own := s.cfg.Certificate.serverChain().Leaf
	if _, ended := firstExpired([]usedCertificate{{"server", own}, {"received", st.SubCA}}, s.cfg.Now()); ended != nil {
		return ended
	}
	return nil
}

// onExpiry calls end as soon as one of the certificates has expired by the clock of the
// service, unless forget is called before.
func (s *shared) onExpiry(list []usedCertificate, end func(*certificateExpired)) (forget func()) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for {
			now := s.cfg.Now()
			first, ended := firstExpired(list, now)
			if ended != nil {
				end(ended)
				return
			}
			// For differences of centuries, Sub returns the maximum Duration.
			left := min(first.cert.NotAfter.Sub(now), 10*s.cfg.PollInterval, maxClockInterval)
			if wait.Sleep(ctx, left+time.Millisecond) != nil {
				return
			}
		}
	}()
	return cancel
}

// logExpired logs that a connection ends because a certificate has expired.
func (s *shared) logExpired(log *slog.Logger, peerID string, e *certificateExpired) {
	s.logLimiter.Log(log, slog.LevelWarn, logthrottle.Key{Who: peerID, Kind: "certificate ended"}, "a certificate of the connection has ended, so the connection ends",
		"certificate", e.role, "not_after", e.notAfter.UTC(), "what_to_do", advice(e.role))
}
