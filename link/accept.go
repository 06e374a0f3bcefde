package link

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"time"

	"peerlink/internal/repeats"
	"peerlink/node/pki"
)

// accept takes connections until the listener is closed.
func (s *Service) accept(ctx, connCtx context.Context) error {
	pause := time.Duration(0)
	for {
		tcp, err := s.cfg.Listener.Accept()
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			if err == nil {
				tcp.Close()
			}
			return err
		}
		if err != nil {
			// Out of file descriptors, for example: that passes.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.repeats.Tell(s.log, slog.LevelError, repeats.Deed{Kind: "accept"}, "can not accept connections, trying again", "err", err)
			if wait(ctx, pause) != nil {
				return err
			}
			continue
		}
		pause = 0
		s.wg.Go(func() { s.meet(ctx, connCtx, tcp) })
	}
}

// meet finds out who has connected, and serves a peer until the connection ends.
func (s *Service) meet(ctx, connCtx context.Context, tcp net.Conn) {
	from := repeats.Deed{Who: sourceOf(tcp.RemoteAddr()).String()}
	leave, err := s.enter(ctx, tcp)
	if err != nil {
		tcp.Close()
		s.rejected.count(reasonOverload)
		from.Kind = "dropped"
		s.repeats.Tell(s.log, slog.LevelWarn, from, "connection dropped before the handshake", "remote", tcp.RemoteAddr(), "err", err)
		return
	}
	// A refused connection keeps its place in the gate until it has been told.
	defer leave()
	conn, id, err := s.handshake(ctx, tcp)
	if err != nil {
		tcp.Close()
		s.rejected.count(handshakeReason(err))
		if !errors.Is(err, io.EOF) { // port scanners and health checks
			from.Kind = handshakeFault(err)
			s.repeats.Tell(s.log, slog.LevelWarn, from, "handshake failed", "remote", tcp.RemoteAddr(), "err", err)
		}
		return
	}
	s.receive(ctx, connCtx, conn, id, leave)
}

// enter waits at the gate, for half as long as a peer would: who has waited longer
// has no time left for the handshake itself, and would only take that of others.
func (s *Service) enter(ctx context.Context, tcp net.Conn) (leave func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.HandshakeTimeout/2)
	defer cancel()
	return s.gate.enter(ctx, tcp.RemoteAddr())
}

// handshakeFault is the kind of an error of a handshake: the rule that a
// certificate breaks, or just TLS.
func handshakeFault(err error) string {
	if rule := pki.Rule(""); errors.As(err, &rule) {
		return string(rule)
	}
	return "TLS"
}

func (s *Service) handshake(ctx context.Context, tcp net.Conn) (conn *peerConn, id pki.Identity, err error) {
	own := s.cfg.Certificate.serverChain()
	conn = &peerConn{own: own.Leaf}
	conn.Conn = tls.Server(tcp, serverTLS(s.cfg.Dir, own, s.cfg.Now, func(i pki.Identity, c []*x509.Certificate) { id, conn.chain = i, c }))
	ctx, cancel := context.WithTimeout(ctx, s.cfg.HandshakeTimeout)
	defer cancel()
	err = conn.HandshakeContext(ctx)
	return conn, id, err
}

// admit decides about an authenticated connection, and registers it. The reason
// for a refusal is meant for the other side.
func (s *Service) admit(r *receiver, id pki.Identity, chain []*x509.Certificate, stop context.CancelFunc) (refusal string) {
	p := s.roster.get(id.ID)
	if p == nil {
		return "Unknown peer: this node has not registered a peer certificate from you."
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.state.Load()
	if st == nil || st.Identity != id {
		return "This node has no active link with you."
	}
	// A peer's root certificate is pinned. Its key must be the one that has
	// signed the server certificate.
	if len(chain) < 2 || !bytes.Equal(st.Root.RawSubjectPublicKeyInfo, chain[1].RawSubjectPublicKeyInfo) {
		return "The certificate was not signed by the pinned root key."
	}
	if len(p.conns) >= s.cfg.MaxConnsPerPeer && !s.giveWay(p) {
		return "Too many connections from one peer."
	}
	r.peer, r.state, r.since = p, st, time.Now()
	p.conns[r] = stop
	return ""
}

// giveWay ends a peer's oldest connection in good order, for a new one, if it has
// lasted for a turn. So neither connections that were abandoned, which their silence
// shows only later, nor as many as may be keep the peer's others out: it may have
// more queues than that. The caller holds the peer's mu.
func (s *Service) giveWay(p *peer) bool {
	var oldest *receiver
	for r := range p.conns {
		if oldest == nil || r.since.Before(oldest.since) {
			oldest = r
		}
	}
	if oldest == nil || time.Since(oldest.since) < s.cfg.ConnTurn {
		return false
	}
	p.conns[oldest]()
	delete(p.conns, oldest)
	s.repeats.Tell(oldest.log, slog.LevelInfo, repeats.Deed{Who: p.id, Kind: "gives way"}, "the peer has as many connections as it may have, its oldest gives way")
	return true
}

func (s *Service) dismiss(r *receiver) {
	r.peer.mu.Lock()
	defer r.peer.mu.Unlock()
	delete(r.peer.conns, r)
}
