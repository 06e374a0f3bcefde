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
	"peerlink/node/pki"
)

// Expiry describes the expiry of a certificate that a link needs.
type Expiry struct {
	// Role is the purpose of the certificate:
	//
	//	server       this node's server certificate
	//	root         this node's root certificate
	//	peer_root    the peer's root certificate, as it was pinned
	//	issued       the peer certificate that this node has issued to the peer
	//	received     the peer certificate that the peer has issued to this node
	//	peer_server  the server certificate that the peer uses, or used last
	Role     string    `json:"role"`
	NotAfter time.Time `json:"not_after"`
	DaysLeft int       `json:"days_left"` // whole days; negative once it has expired
}

func (e Expiry) utc() Expiry {
	e.NotAfter = e.NotAfter.UTC()
	return e
}

// usedCertificate is a certificate that a link needs.
type usedCertificate struct {
	role string
	cert *x509.Certificate
}

// ownCertificates returns the certificates that all links need.
func (s *Service) ownCertificates() []usedCertificate {
	return []usedCertificate{{"server", s.cfg.Certificate.serverChain().Leaf}, {"root", s.cfg.Dir.Root()}}
}

// certificates returns the certificates that only the link with this peer needs: none
// while there must be no traffic with the peer.
func (p *peer) certificates() []usedCertificate {
	st := p.state.Load()
	if st == nil {
		return nil
	}
	list := []usedCertificate{{"peer_root", st.Root}, {"issued", st.Issued}, {"received", st.SubCA}}
	for _, leaf := range p.stats.peerCertificates() {
		list = append(list, usedCertificate{"peer_server", leaf})
	}
	return slices.DeleteFunc(list, func(c usedCertificate) bool { return c.cert == nil })
}

func expiries(list []usedCertificate, now time.Time) []Expiry {
	out := make([]Expiry, 0, len(list))
	for _, c := range list {
		days, _ := pki.Expiry(c.cert.NotAfter, now)
		out = append(out, Expiry{Role: c.role, NotAfter: c.cert.NotAfter.UTC(), DaysLeft: days})
	}
	slices.SortStableFunc(out, func(a, b Expiry) int { return a.NotAfter.Compare(b.NotAfter) })
	return out
}

// expiryPolls is the time between two checks of the expiry of certificates, as a multiple
// of [Config.PollInterval].
const expiryPolls = 60

// watchExpiry logs certificates that are about to expire, until ctx is done.
func (s *Service) watchExpiry(ctx context.Context) {
	tick := time.NewTicker(expiryPolls * s.cfg.PollInterval)
	defer tick.Stop()
	w := expiryLogger{log: s.log, limiter: s.logLimiter, logged: make(map[expiryKey]int)}
	for {
		now := s.cfg.Now()
		w.check("", s.ownCertificates(), now)
		for _, p := range s.peers.all() {
			w.check(p.id, p.certificates(), now)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// expiryLogger logs each threshold of [pki.Expiry] once for each certificate. Entries about the
// certificates of one role are limited for each peer, which may use new ones all the time.
type expiryLogger struct {
	log     *slog.Logger
	limiter *logthrottle.Limiter
	logged  map[expiryKey]int // the last threshold logged, in days before the expiry; 0: the expiry itself
}

// expiryKey identifies a certificate by its signature, because each reading of the same
// certificate, from a file or the network, returns another [x509.Certificate].
type expiryKey struct{ peer, role, signature string }

const (
	// maxLogged bounds the entries of expiryLogger.logged. Peers may use new certificates
	// as often as they like.
	maxLogged = 10_000
	// errorDays is how many days before the expiry a warning becomes an error.
	errorDays = 7
)

// check logs the certificates of a list that have reached another threshold. peer is the
// ID of the peer, or empty for the node's own certificates.
func (w *expiryLogger) check(peer string, list []usedCertificate, now time.Time) {
	for _, c := range list {
		days, threshold := pki.Expiry(c.cert.NotAfter, now)
		if threshold == 0 {
			continue // does not expire soon
		}
		if now.After(c.cert.NotAfter) {
			threshold = 0
		}
		key := expiryKey{peer, c.role, string(c.cert.Signature)}
		if last, ok := w.logged[key]; ok && last <= threshold {
			continue
		}
		if len(w.logged) >= maxLogged {
			clear(w.logged)
		}
		w.logged[key] = threshold
		w.write(peer, c, days, threshold)
	}
}

// write logs that a certificate expires in a number of days or, if threshold is 0, that
// it has expired.
func (w *expiryLogger) write(peer string, c usedCertificate, days, threshold int) {
	log := w.log.With("certificate", c.role, "not_after", c.cert.NotAfter.UTC(), "what_to_do", advice(c.role))
	if peer != "" {
		log = log.With("peer", peer)
	}
	level := slog.LevelWarn
	if threshold <= errorDays {
		level = slog.LevelError
	}
	kind := logthrottle.Key{Who: peer, Kind: "certificate ends: " + c.role}
	if threshold == 0 {
		w.limiter.Log(log, level, kind, "certificate has ended")
		return
	}
	w.limiter.Log(log, level, kind, "certificate is about to end", "days_left", days)
}

// advice returns what the operator should do about a certificate that expires.
func advice(role string) string {
	switch role {
	case "server":
		return "make a new one (peerlink server-cert issue) and put it in place, no restart is needed"
	case "peer_server":
		return "tell the peer's owner, who has to make a new server certificate"
	case "issued", "received":
		return "nothing renews a peer certificate, which is made for centuries: the two nodes have to become peers anew, under another ID"
	default:
		return "a node can not renew its root certificate: see the documentation"
	}
}

// A connection ends when the first of the certificates that authenticated it expires:
// those that this node has sent, those that the peer has sent, and the root certificate
// of the chain. TLS checks their dates once, in the handshake. If connections did not
// end, an attacker who has stolen a server key could use a connection long after the
// certificate has expired.

// maxClockInterval is the longest time between two checks of the clock. A single timer
// until the expiry is not sufficient: it stops while the machine is suspended, and setting
// the clock does not change it.
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

// certificateName describes a certificate by its role. own and peers are the words for
// "this node's" and "the peer's" at the beginning of the description.
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

// firstToExpire returns the certificate that expires first. If that has expired at the
// time now, firstToExpire also returns the error of a connection that needs all
// certificates of the list.
func firstToExpire(list []usedCertificate, now time.Time) (first usedCertificate, expired *certificateExpired) {
	first = slices.MinFunc(list, func(a, b usedCertificate) int { return a.cert.NotAfter.Compare(b.cert.NotAfter) })
	if now.After(first.cert.NotAfter) {
		expired = &certificateExpired{first.role, first.cert.NotAfter}
	}
	return first, expired
}

// checkClientChain returns an error if a certificate that this node would send to a peer
// has expired by this node's clock. If it has not expired by the peer's clock, the peer
// would accept the connection, and this node would have to end it at once.
func (s *shared) checkClientChain(st *peerState) error {
	own := s.cfg.Certificate.serverChain().Leaf
	if _, expired := firstToExpire([]usedCertificate{{"server", own}, {"received", st.SubCA}}, s.cfg.Now()); expired != nil {
		return expired
	}
	return nil
}

// onExpiry calls end, on a goroutine of its own, when one of the certificates has expired by the
// clock of the service, at most maxClockInterval later, unless stopWatching is called before.
func (s *shared) onExpiry(list []usedCertificate, end func(*certificateExpired)) (stopWatching func()) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for {
			now := s.cfg.Now()
			first, expired := firstToExpire(list, now)
			if expired != nil {
				end(expired)
				return
			}
			// If the difference is centuries, Sub returns the maximum Duration.
			left := min(first.cert.NotAfter.Sub(now), 10*s.cfg.PollInterval, maxClockInterval)
			if wait.Sleep(ctx, left+time.Millisecond) != nil {
				return
			}
		}
	}()
	return cancel
}

// logExpired logs that a connection ends because a certificate has expired. The entries with the
// same who, the ID of a peer or the name of a queue, are limited together.
func (s *shared) logExpired(log *slog.Logger, who string, e *certificateExpired) {
	s.logLimiter.Log(log, slog.LevelWarn, logthrottle.Key{Who: who, Kind: "certificate ended"}, "a certificate of the connection has ended, so the connection ends",
		"certificate", e.role, "not_after", e.notAfter.UTC(), "what_to_do", advice(e.role))
}
