package link

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"peerlink/internal/excerpt"
	"peerlink/internal/latency"
	"peerlink/node/pki"
)

// peerStats holds the statistics of the link with one peer since the service started.
// Its methods are safe for concurrent use. Those that are called for each message are
// cheap: they only count.
type peerStats struct {
	sent, sentBytes, confirmed      atomic.Uint64
	received, receivedBytes, stored atomic.Uint64
	refused, refusedByPeer          atomic.Uint64
	setAside                        atomic.Uint64
	connects, failures              atomic.Uint64
	fetches, fetchFailures          atomic.Uint64

	confirmations latency.Durations // from sending a message to the arrival of its receipt
	handshakes    latency.Durations // of TLS

	// mu guards what follows. It may be locked while the peer's mu is, and not the other way.
	mu       sync.Mutex
	conns    map[*openConn]struct{}
	lastLeaf *x509.Certificate // the server certificate that the peer sent last
	errors   [3]recordedError  // the last ones, by origin
	events   []Event           // the oldest first
	servers  map[string]ServerResult
	contact  time.Time // latest handshake with the peer, or data from it on a connection that is closed; zero: none
}

// recordedError is an error that the status shows.
type recordedError struct {
	text string
	at   time.Time // zero if there was none
}

// origin is what an error belongs to: when that works again, the error is not shown any more.
type origin int

const (
	outgoing  origin = iota // the direction in which this node sends
	fromPeer                // the direction in which the peer sends
	directory               // the peer's files in the node's directory, and what is made of them in the broker
)

// openConn is a connection that carries messages.
type openConn struct {
	Connection
	leaf             *x509.Certificate
	wire             *wireConn        // nil in tests
	unconfirmedSince func() time.Time // since when messages wait for the peer's confirmation; zero: none do; nil if nothing is sent
}

// described names the connection in an event.
func (c *openConn) described() string {
	if c.Direction == Sending {
		return "the connection to " + c.Remote
	}
	return "the connection from " + c.Remote
}

// counts returns the present values of the counters.
func (s *peerStats) counts() Counts {
	return Counts{
		Sent: s.sent.Load(), SentBytes: s.sentBytes.Load(), Confirmed: s.confirmed.Load(),
		Received: s.received.Load(), ReceivedBytes: s.receivedBytes.Load(), Stored: s.stored.Load(),
		Refused: s.refused.Load(), RefusedByPeer: s.refusedByPeer.Load(), SetAside: s.setAside.Load(),
		Connects: s.connects.Load(), Failures: s.failures.Load(),
		Fetches: s.fetches.Load(), FetchFailures: s.fetchFailures.Load(),
	}
}

// messageSent counts a message given to the connection.
func (s *peerStats) messageSent(bytes int) {
	s.sent.Add(1)
	s.sentBytes.Add(uint64(bytes))
}

// messageReceived counts a received message, valid or not.
func (s *peerStats) messageReceived(bytes int) {
	s.received.Add(1)
	s.receivedBytes.Add(uint64(bytes))
}

// connOpened records that a connection has begun to carry messages. The caller calls
// closed when the connection carries no more messages.
func (s *peerStats) connOpened(conn *openConn) (closed func()) {
	s.connects.Add(1)
	conn.Since = time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if conn.leaf != nil {
		s.lastLeaf = conn.leaf
	}
	if s.conns == nil {
		s.conns = make(map[*openConn]struct{})
	}
	s.conns[conn] = struct{}{}
	s.recordEvent(false, conn.described()+" has begun")
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, conn)
		s.recordEvent(false, conn.described()+" has ended")
		s.contact = later(s.contact, conn.wire.lastReceived())
	}
}

// recordedErrors returns the last errors, by origin.
func (s *peerStats) recordedErrors() [3]recordedError {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.errors
}

// madeContact records that the peer has completed a TLS handshake now.
func (s *peerStats) madeContact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.contact = time.Now()
}

// lastContact returns the time for [PeerStatus.LastContact], zero if there was no contact. The
// caller holds mu.
func (s *peerStats) lastContact() time.Time {
	last := s.contact
	for c := range s.conns {
		last = later(last, c.wire.lastReceived())
	}
	return last
}

// recordFailure counts a failure to send, and keeps its error.
func (s *peerStats) recordFailure(err error) {
	s.failures.Add(1)
	s.recordError(outgoing, err)
}

// recordError keeps an error for the status, without counting it. A nil error removes the last one.
func (s *peerStats) recordError(from origin, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errors[from] = recordedError{}
	if err != nil {
		s.errors[from] = recordedError{excerpt.Limit(err.Error(), maxErrorText), time.Now()}
		s.recordEvent(true, err.Error())
	}
}

// peerCertificates returns the server certificates of the peer on its open connections
// or, if there are none, the last one used.
func (s *peerStats) peerCertificates() []*x509.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*x509.Certificate
	for c := range s.conns {
		skip := c.leaf == nil
		for _, l := range list {
			skip = skip || l.Equal(c.leaf)
		}
		if !skip {
			list = append(list, c.leaf)
		}
	}
	if len(list) == 0 && s.lastLeaf != nil {
		list = append(list, s.lastLeaf)
	}
	return list
}

// maxErrorText bounds the text of an error that is kept, in bytes: a peer may have written it.
const maxErrorText = 500

// reason is why a connection ended before it was registered with a peer.
type reason string

const (
	reasonOverload    reason = "overload"    // too many connections or handshakes at once
	reasonAbandoned   reason = "abandoned"   // closed by the client: port scanners, health checks
	reasonTimeout     reason = "timeout"     // the ClientHello or the handshake took too long
	reasonCertificate reason = "certificate" // no valid certificate chain
	reasonProtocol    reason = "protocol"    // no TLS, unsupported version, no certificate, others
	reasonNoPeer      reason = "no_peer"     // the chain is valid, but register has rejected the connection
)

// rejections counts the connections that ended before they were registered with a peer.
type rejections struct {
	mu       sync.Mutex
	byReason map[reason]uint64
}

func (r *rejections) count(why reason) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byReason == nil {
		r.byReason = make(map[reason]uint64)
	}
	r.byReason[why]++
}

// all returns the counts by reason, zeros included.
func (r *rejections) all() map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[string]uint64)
	for _, why := range []reason{reasonOverload, reasonAbandoned, reasonTimeout, reasonCertificate, reasonProtocol, reasonNoPeer} {
		all[string(why)] = r.byReason[why]
	}
	return all
}

// handshakeReason returns the reason for an error before the end of a handshake.
func handshakeReason(err error) reason {
	var rule pki.Rule
	var timeout net.Error
	switch {
	case errors.Is(err, errTooMany):
		return reasonOverload
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return reasonAbandoned
	case errors.As(err, &rule):
		return reasonCertificate
	case errors.As(err, &timeout) && timeout.Timeout():
		return reasonTimeout
	default:
		return reasonProtocol
	}
}
