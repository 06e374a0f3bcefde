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
	"peerlink/node/pki"
)

// peerStats holds the statistics of the link with one peer since the service started.
// Its methods are safe for concurrent use, and cheap: those that are called for each
// message only count.
type peerStats struct {
	sent, sentBytes, confirmed      atomic.Uint64
	received, receivedBytes, stored atomic.Uint64
	refused, refusedByPeer          atomic.Uint64
	setAside                        atomic.Uint64
	connects, failures              atomic.Uint64
	fetches, fetchFailures          atomic.Uint64

	mu        sync.Mutex // guards what follows
	conns     map[*openConn]struct{}
	shown     *x509.Certificate // the server certificate that the peer showed last
	lastError string
	failedAt  time.Time
}

// openConn is a connection that carries messages.
type openConn struct {
	Connection
	leaf *x509.Certificate
}

// counts returns the counters at one moment.
func (t *peerStats) counts() Counts {
	return Counts{
		Sent: t.sent.Load(), SentBytes: t.sentBytes.Load(), Confirmed: t.confirmed.Load(),
		Received: t.received.Load(), ReceivedBytes: t.receivedBytes.Load(), Stored: t.stored.Load(),
		Refused: t.refused.Load(), RefusedByPeer: t.refusedByPeer.Load(), SetAside: t.setAside.Load(),
		Connects: t.connects.Load(), Failures: t.failures.Load(),
		Fetches: t.fetches.Load(), FetchFailures: t.fetchFailures.Load(),
	}
}

// messageSent counts a message given to the connection.
func (t *peerStats) messageSent(bytes int) {
	t.sent.Add(1)
	t.sentBytes.Add(uint64(bytes))
}

// messageReceived counts a received message, valid or not.
func (t *peerStats) messageReceived(bytes int) {
	t.received.Add(1)
	t.receivedBytes.Add(uint64(bytes))
}

// connOpened records that a connection has begun to carry messages. The caller calls
// closed when it does not any more.
func (t *peerStats) connOpened(c Connection, chain []*x509.Certificate) (closed func()) {
	t.connects.Add(1)
	c.Since = time.Now()
	conn := &openConn{Connection: c}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(chain) > 0 {
		conn.leaf, t.shown = chain[0], chain[0]
	}
	if t.conns == nil {
		t.conns = make(map[*openConn]struct{})
	}
	t.conns[conn] = struct{}{}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.conns, conn)
	}
}

// recordFailure counts a failure of the link, and keeps its error.
func (t *peerStats) recordFailure(err error) {
	t.failures.Add(1)
	t.recordError(err)
}

// recordError keeps an error for the status, without counting it.
func (t *peerStats) recordError(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lastError, t.failedAt = excerpt.Limit(err.Error(), maxErrorText), time.Now()
}

// peerCertificates returns the server certificates of the peer on its open connections
// or, if there are none, the last one used.
func (t *peerStats) peerCertificates() []*x509.Certificate {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []*x509.Certificate
	for c := range t.conns {
		known := c.leaf == nil
		for _, l := range list {
			known = known || l.Equal(c.leaf)
		}
		if !known {
			list = append(list, c.leaf)
		}
	}
	if len(list) == 0 && t.shown != nil {
		list = append(list, t.shown)
	}
	return list
}

// maxErrorText bounds the text of an error that is kept: a peer may have written it.
const maxErrorText = 500

// reason is why a connection ended before it was registered with a peer.
type reason string

const (
	reasonOverload    reason = "overload"    // too many handshakes at once
	reasonAbandoned   reason = "abandoned"   // the client sent nothing, or closed the connection: port scanners, health checks
	reasonTimeout     reason = "timeout"     // the handshake took too long
	reasonCertificate reason = "certificate" // no valid certificate chain
	reasonProtocol    reason = "protocol"    // no TLS, an unsupported TLS version, or no certificate
	reasonNoPeer      reason = "no_peer"     // a valid chain, but no active link with that node, or too many connections
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

// handshakeReason returns why a handshake has failed.
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
