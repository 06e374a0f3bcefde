package link

import (
	"crypto/x509"
	"slices"
	"time"

	"peerlink/internal/excerpt"
	"peerlink/node/pki"
)

// PeerDetails describes a peer and the recent past of the link with it, beyond [PeerStatus].
type PeerDetails struct {
	// Theirs is the chain with which this node verifies the peer's servers and clients, from this node's
	// root certificate to the server certificate that the peer uses or used last, and Ours the one with which
	// the peer verifies this node. Of a certificate that is not known, they have only the role.
	Theirs, Ours []ChainLink
	// Subnet is the prefix, in hex, of the account IDs that the peer has of this node, or this node of
	// the peer; empty if there is none.
	Subnet  string
	Servers []ServerResult // the peer's servers, as in [PeerStatus].Servers
	Events  []Event        // the newest first
}

// ChainLink is a certificate of a chain.
type ChainLink struct {
	Role        string // as that of an [Expiry]
	Fingerprint string // of its key, see [pki.Fingerprint]; empty if the certificate is not known
	NotAfter    time.Time
	DaysLeft    int
}

// ServerResult is the result of the last attempt to connect to a server of a peer.
type ServerResult struct {
	Address string
	At      time.Time // zero if none was made since the service started
	Error   string    // empty if the TLS handshake succeeded
}

// Event is something that has happened to the link with a peer.
type Event struct {
	At      time.Time // when it happened first
	Last    time.Time // when it happened last without anything else in between
	Times   int
	Failure bool
	Text    string
}

const (
	// maxEvents and maxEventText bound the events that are kept of each peer, the latter in bytes: a
	// peer may have written parts of the text.
	maxEvents    = 30
	maxEventText = 240
	// maxServerResults is how many servers a peer can name; see [node.StompConfig].
	maxServerResults = 100
)

// PeerDetails returns the details of a peer. It reports whether there is one with this ID.
func (s *Service) PeerDetails(id string) (d PeerDetails, ok bool) {
	p := s.peers.get(id)
	if p == nil {
		return d, false
	}
	d.Events = p.stats.recentEvents()
	np := p.lastContent.Load()
	if np == nil {
		return d, true
	}
	now := s.cfg.Now()
	d.Subnet = np.Subnet
	for _, address := range servers(np) {
		d.Servers = append(d.Servers, p.stats.serverResult(address))
	}
	var theirs *x509.Certificate
	if leaves := p.stats.peerCertificates(); len(leaves) > 0 {
		theirs = leaves[len(leaves)-1]
	}
	d.Theirs = chain(now, usedCertificate{"root", s.cfg.Dir.Root()}, usedCertificate{"issued", np.Issued},
		usedCertificate{"peer_root", np.Root}, usedCertificate{"peer_server", theirs})
	d.Ours = chain(now, usedCertificate{"peer_root", np.Root}, usedCertificate{"received", np.SubCA},
		usedCertificate{"root", s.cfg.Dir.Root()}, usedCertificate{"server", s.cfg.Certificate.serverChain().Leaf})
	return d, true
}

// chain describes certificates, which may be nil.
func chain(now time.Time, list ...usedCertificate) (links []ChainLink) {
	for _, c := range list {
		l := ChainLink{Role: c.role}
		if c.cert != nil {
			days, _ := pki.Expiry(c.cert.NotAfter, now)
			l = ChainLink{c.role, pki.Fingerprint(c.cert.PublicKey), c.cert.NotAfter.UTC(), days}
		}
		links = append(links, l)
	}
	return links
}

// recordServer records the result of an attempt to connect to a server of the peer. leaf is its certificate, nil
// after an error.
func (s *peerStats) recordServer(address string, leaf *x509.Certificate, err error) {
	r := ServerResult{Address: address, At: time.Now()}
	if err != nil {
		r.Error = excerpt.Limit(err.Error(), maxErrorText)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.servers == nil || len(s.servers) >= maxServerResults && s.servers[address].At.IsZero() {
		s.servers = make(map[string]ServerResult) // the peer has moved
	}
	s.servers[address] = r
	if leaf != nil {
		s.lastLeaf = leaf
	}
}

// serverResult returns the result of the last attempt to connect to a server.
func (s *peerStats) serverResult(address string) ServerResult {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.servers[address]
	r.Address = address
	return r
}

// recordEvent keeps an event for [PeerDetails]. The caller holds mu.
func (s *peerStats) recordEvent(failure bool, text string) {
	text, now := excerpt.Limit(text, maxEventText), time.Now()
	if n := len(s.events); n > 0 && s.events[n-1].Text == text {
		last := &s.events[n-1]
		last.Last, last.Times = now, last.Times+1
		return
	}
	if len(s.events) == maxEvents {
		s.events = slices.Delete(s.events, 0, 1)
	}
	s.events = append(s.events, Event{At: now, Last: now, Times: 1, Failure: failure, Text: text})
}

// recentEvents returns the events that are kept, the newest first.
func (s *peerStats) recentEvents() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := slices.Clone(s.events)
	slices.Reverse(events)
	return events
}
