package link

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"peerlink/internal/logthrottle"
	"peerlink/internal/pendingconns"
	"peerlink/internal/wait"
	"peerlink/node/pki"
)

// pendingConn is a connection that has not sent a complete ClientHello yet.
type pendingConn = pendingconns.Conn[netip.Prefix]

// acceptor accepts the connections of peers.
type acceptor struct {
	*shared
	pendingConns       *pendingconns.Set[netip.Prefix] // without a complete ClientHello
	handshakes         *handshakeLimiter
	verifySemaphore    *verifySemaphore
	unauthenticatedLog *logthrottle.Limiter // for entries that unauthenticated clients cause
	rejected           rejections
}

func newAcceptor(s *shared) *acceptor {
	_, _, waiting := connLimits(pendingconns.OpenFiles())
	return &acceptor{
		shared:       s,
		pendingConns: pendingconns.New[netip.Prefix](s.cfg.MaxPendingConns),
		handshakes: newHandshakeLimiter(handshakeLimits{
			maxRunning: s.cfg.MaxHandshakes,
			reserved:   s.cfg.MaxHandshakes / 4,
			maxWaiting: min(4*s.cfg.MaxHandshakes, waiting),
			perSecond:  s.cfg.MaxHandshakeRate,
			grace:      s.cfg.HandshakeTimeout / 5,
		}),
		verifySemaphore:    newVerifySemaphore(),
		unauthenticatedLog: logthrottle.NewForStrangers(),
	}
}

// accept accepts connections until ctx is done or listener is closed.
func (a *acceptor) accept(ctx, graceCtx context.Context, listener net.Listener) error {
	context.AfterFunc(ctx, a.pendingConns.Close)
	pause := time.Duration(0)
	for {
		tcp, err := listener.Accept()
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			if err == nil {
				tcp.Close()
			}
			return err
		}
		if err != nil {
			a.logLimiter.Log(a.log, slog.LevelError, logthrottle.Key{Kind: "accept"}, "can not accept connections, trying again", "err", err)
			// The process may have run out of file descriptors. A connection without a
			// complete ClientHello is closed, so that peers need not wait for a descriptor.
			// If there is no such connection, accept retries after a pause.
			if a.pendingConns.Evict() {
				continue
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			if wait.Sleep(ctx, pause) != nil {
				return err
			}
			continue
		}
		pause = 0
		pending := a.pendingConns.Add(pendingconns.SourceOf(tcp.RemoteAddr()), tcp) // added before the next Accept, so that the bound always holds
		a.wg.Go(func() { a.serveConn(ctx, graceCtx, tcp, pending) })
	}
}

// serveConn authenticates a client and, if it is a peer, serves it until the connection
// ends.
func (a *acceptor) serveConn(ctx, graceCtx context.Context, tcp net.Conn, pending *pendingConn) {
	hello, err := a.awaitClientHello(tcp, pending)
	var slot *handshake
	if err == nil {
		slot, err = a.awaitHandshakeSlot(ctx, hello)
	}
	if err != nil {
		tcp.Close()
		remote := tcp.RemoteAddr()
		if hello != nil {
			remote = hello.remote
		}
		a.recordUnauthenticated(remote, err)
		return
	}
	// A rejected connection keeps its slot until the peer has been sent the reason.
	defer slot.release()
	hello.onAwaitingClient = slot.markAwaitingClient
	conn, id, err := a.handshake(ctx, hello)
	if err != nil {
		tcp.Close()
		if slot.evicted() {
			err = errTooMany
		}
		a.recordUnauthenticated(hello.remote, err)
		return
	}
	a.receive(ctx, graceCtx, conn, id, slot.release)
}

// awaitClientHello reads a complete ClientHello, after a PROXY header where one is
// expected. It returns errTooMany if the connection was evicted from pendingConns
// meanwhile.
func (a *acceptor) awaitClientHello(tcp net.Conn, pending *pendingConn) (*helloConn, error) {
	hello, err := a.readBeginning(tcp)
	if !pending.Remove() {
		err = errTooMany
	}
	return hello, err
}

func (a *acceptor) readBeginning(tcp net.Conn) (*helloConn, error) {
	if err := tcp.SetReadDeadline(time.Now().Add(a.cfg.HandshakeTimeout)); err != nil {
		return nil, err
	}
	c := &helloConn{Conn: tcp, remote: tcp.RemoteAddr()}
	var err error
	if a.behindProxy(tcp) {
		ahead := bufio.NewReaderSize(tcp, proxyBuffer)
		if c.remote, err = readProxyHeader(tcp, ahead); err != nil {
			return nil, err
		}
		if c.hello, err = readClientHello(ahead); err != nil {
			return nil, err
		}
		rest, _ := ahead.Peek(ahead.Buffered())
		c.hello = append(c.hello, rest...) // what ahead has read beyond the ClientHello
	} else if c.hello, err = readClientHello(tcp); err != nil {
		return nil, err
	}
	return c, tcp.SetReadDeadline(time.Time{})
}

// awaitHandshakeSlot waits until the handshake may begin, for at most half of the
// handshake timeout: a client that has waited longer has no time left for the handshake
// itself, and would only delay others.
func (a *acceptor) awaitHandshakeSlot(ctx context.Context, conn net.Conn) (*handshake, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.HandshakeTimeout/2)
	defer cancel()
	h, err := a.handshakes.acquire(ctx, conn)
	if errors.Is(err, context.DeadlineExceeded) {
		err = errTooMany
	}
	return h, err
}

// recordUnauthenticated counts and logs a connection that ended before the client was
// authenticated. Those that the client has closed, as port scanners and the health checks
// of load balancers do, are not logged.
func (a *acceptor) recordUnauthenticated(remote net.Addr, err error) {
	if errors.Is(err, context.Canceled) {
		return // the service stops
	}
	why := handshakeReason(err)
	a.rejected.count(why)
	level, text, kind := slog.LevelWarn, "handshake failed", handshakeFault(err)
	switch {
	case why == reasonAbandoned:
		return
	case why == reasonOverload:
		text, kind = "connection dropped before the end of its handshake", "dropped"
	case withoutCertificate(err):
		level, kind = slog.LevelInfo, "no certificate" // health checks with TLS
	case unsupportedVersion(err):
		level, kind = slog.LevelInfo, "unsupported version" // health checks with TLS 1.2 or SSL 3.0
	}
	a.unauthenticatedLog.Log(a.log, level, logthrottle.Key{Who: pendingconns.SourceOf(remote).String(), Kind: kind}, text, "remote", remote.String(), "err", err)
}

// withoutCertificate reports whether err means that the client has sent no certificate.
func withoutCertificate(err error) bool {
	return innermostText(err) == "tls: client didn't provide a certificate"
}

// unsupportedVersion reports whether err means that the client does not offer TLS 1.3.
func unsupportedVersion(err error) bool {
	return strings.HasPrefix(innermostText(err), "tls: client offered only unsupported versions: ")
}

// innermostText returns the text of the innermost error, which identifies errors that
// crypto/tls does not export. Errors about a certificate quote the certificate, so a client
// could choose a part of their text: only the beginning, or the whole, of the innermost
// text may be compared.
func innermostText(err error) string {
	for next := err; next != nil; next = errors.Unwrap(next) {
		err = next
	}
	return err.Error()
}

// handshakeFault returns the kind of a handshake error for the log: the rule that a
// certificate violates, or "TLS".
func handshakeFault(err error) string {
	if rule := pki.Rule(""); errors.As(err, &rule) {
		return string(rule)
	}
	return "TLS"
}

// handshake completes the TLS handshake, and returns the identity in the client's verified
// chain. On an error it does not close tcp.
func (a *acceptor) handshake(ctx context.Context, tcp net.Conn) (conn *peerConn, id pki.Identity, err error) {
	own := a.cfg.Certificate.serverChain()
	conn = &peerConn{own: own.Leaf, wire: &wireConn{Conn: tcp}}
	conn.Conn = tls.Server(conn.wire, a.serverTLS(own, func(i pki.Identity, c []*x509.Certificate) { id, conn.chain = i, c }))
	ctx, cancel := context.WithTimeout(ctx, a.cfg.HandshakeTimeout)
	defer cancel()
	begin := time.Now()
	err = conn.HandshakeContext(ctx)
	conn.took = time.Since(begin)
	conn.wire.begin()
	return conn, id, err
}

// logContradiction logs an error if the peer certificate in the chain, which this node has
// signed, contradicts the node's directory: it belongs to no peer there, or to one with
// another subnet. Then, unless the certificate is on record, so that the peer was removed, the
// certificate's subnet may have been given to another peer. st is
// nil if the connection was rejected.
func (a *acceptor) logContradiction(log *slog.Logger, id pki.Identity, chain []*x509.Certificate, st *peerState) {
	if len(chain) < 2 {
		return
	}
	subnet, ok, err := pki.SubnetComment(chain[1])
	if err != nil || !ok {
		return // a subnet is given by an accounting authority only
	}
	const remedy = "perhaps an older copy of the directory was put back: before anything is signed, put the certificates that the peers have into certs/, see docs/keys.md"
	switch {
	case st != nil && st.Subnet != subnet:
		a.logLimiter.Log(log, slog.LevelError, logthrottle.Key{Who: id.ID, Kind: "other subnet"}, "the peer uses a certificate with another subnet than the directory has for it; "+remedy, "subnet", subnet, "in_directory", st.Subnet)
	case st == nil && !a.cfg.Dir.HasPeer(id.ID) && a.cfg.Dir.HasRecord(chain[1]):
		a.logLimiter.Log(log, slog.LevelWarn, logthrottle.Key{Who: id.ID, Kind: "removed peer"}, "a node that was removed from the peers uses the certificate that this node has signed for it; if that was right, its owner has to end its link with this node", "subnet", subnet)
	case st == nil && !a.cfg.Dir.HasPeer(id.ID):
		a.logLimiter.Log(log, slog.LevelError, logthrottle.Key{Who: id.ID, Kind: "lost peer"}, "a node uses a certificate that this node has signed, but is no peer in the directory; "+remedy, "subnet", subnet)
	}
}

// register registers an authenticated connection with its peer, or returns why the
// connection is rejected, in words for the other side.
func (a *acceptor) register(r *receiver, id pki.Identity, chain []*x509.Certificate, stop context.CancelFunc) (rejection string) {
	p := a.peers.get(id.ID)
	if p == nil {
		return "Unknown peer: this node has not registered a peer certificate from you."
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.state.Load()
	if st == nil {
		return p.rejectInactive(id, chain)
	}
	if st.Identity != id {
		return noActiveLink
	}
	// The peer's root key is pinned. It must be the key that has signed the server
	// certificate.
	if !signedBy(st.Root, chain) {
		p.recordOtherRoot(st.Root)
		return "The certificate was not signed by the pinned root key."
	}
	// The state of the link is not affected: the owner may be connected at the same time.
	if st.Revoked.Has(chain[0]) {
		return revokedKey
	}
	if len(p.conns) >= a.cfg.MaxConnsPerPeer && !a.evictOldest(p) {
		return "Too many connections from one peer."
	}
	r.peer, r.state, r.since = p, st, time.Now()
	p.conns[r] = stop
	p.recordAuthenticated(st.Root)
	return ""
}

// revokedKey is the rejection of a connection with a server key that the peer has revoked.
const revokedKey = "Your server key has been revoked: it is in revoked-keys.txt of your node's info-bundle."

// noActiveLink is the rejection of a peer with which there must be no traffic.
const noActiveLink = "This node has no active link with you."

// suspendedLink is the beginning of the rejection of a peer while the link with it is suspended. The reason follows.
const suspendedLink = "The owner of this node has suspended the link with you. It will be resumed."

// rejectInactive returns the rejection of a peer that has no state. A peer that connects while
// this node has not registered its certificate has registered that of this node: the fault is here.
func (p *peer) rejectInactive(id pki.Identity, chain []*x509.Certificate) (rejection string) {
	read := p.lastContent.Load()
	switch {
	case read == nil || read.Identity != id || !signedBy(read.Root, chain):
		return noActiveLink
	case read.Revoked.Has(chain[0]):
		return revokedKey
	}
	switch read.State() {
	case "suspended":
		if read.Suspended.Reason != "" {
			return suspendedLink + " Reason: " + read.Suspended.Reason
		}
		return suspendedLink
	case "signed":
	default:
		return noActiveLink
	}
	p.stats.madeContact()
	p.in.set(LinkState{Verdict: VerdictNotRegistered,
		Reason: "the peer connects to this node, where the peer certificate that it has issued is not registered",
		Remedy: "run, with the certificate that the owner of " + p.id + " has sent: peerlink peer register CERT"})
	return "This node has no active link with you: its owner has not registered the peer certificate from you yet."
}

// signedBy reports whether the server certificate of a verified chain was signed with the key of root.
func signedBy(root *x509.Certificate, chain []*x509.Certificate) bool {
	return len(chain) > 1 && bytes.Equal(root.RawSubjectPublicKeyInfo, chain[1].RawSubjectPublicKeyInfo)
}

// evictOldest ends the oldest connection of a peer in good order, so that a new one can
// be registered, if the oldest has lasted for [Config.ConnTimeSlice]. It reports whether
// it has ended a connection. Thus new connections are prevented neither by abandoned
// connections, which are detected late, nor by MaxConnsPerPeer connections that last: a
// peer with more queues than MaxConnsPerPeer needs more connections. The caller holds
// the peer's mu.
func (a *acceptor) evictOldest(p *peer) bool {
	var oldest *receiver
	for r := range p.conns {
		if oldest == nil || r.since.Before(oldest.since) {
			oldest = r
		}
	}
	if oldest == nil || time.Since(oldest.since) < a.cfg.ConnTimeSlice {
		return false
	}
	p.conns[oldest]()
	delete(p.conns, oldest)
	a.logLimiter.Log(oldest.log, slog.LevelInfo, logthrottle.Key{Who: p.id, Kind: "gives way"}, "the peer has as many connections as it may have, the oldest ends in favour of a new one")
	return true
}

func (a *acceptor) unregister(r *receiver) {
	r.peer.mu.Lock()
	defer r.peer.mu.Unlock()
	delete(r.peer.conns, r)
}

const (
	// defaultPendingConns and defaultHandshakes are the defaults if the limit of open
	// files is high enough.
	defaultPendingConns = 4096
	defaultHandshakes   = 256

	// fewOpenFiles is the limit of open files below which a warning is logged: a
	// hundred peers need up to 2,000 at once.
	fewOpenFiles = 4096
)

// connLimits returns how many connections may wait for their ClientHello, how many
// handshakes may run at once, and how many connections may wait for a handshake to
// begin, in a process with this limit of open files. Together they take two thirds of
// the limit at most. The rest is reserved for the connections from and to peers, and for
// files.
func connLimits(limit int) (pendingConns, handshakes, waiting int) {
	pendingConns = max(min(defaultPendingConns, limit/4), 1)
	handshakes = max(min(defaultHandshakes, limit/6), 4)
	waiting = max(min(4*defaultHandshakes, limit/4), 4)
	return pendingConns, handshakes, waiting
}

// warnFewOpenFiles logs a warning if the limit of open files is low.
func (s *Service) warnFewOpenFiles() {
	if limit := pendingconns.OpenFiles(); limit < fewOpenFiles {
		s.log.Warn("the limit of open files is low: with many peers, or many unauthenticated connections, new connections may fail",
			"limit", limit, "what_to_do", "allow 65536 (LimitNOFILE in systemd, ulimit -n in a shell)")
	}
}
