package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"

	"peerlink/node"
)

// connect tries the peer's servers, in random order, until one answers. Servers
// that are listed more than once come first more often.
func (sd *sender) connect(ctx context.Context, st *peerState) (*tls.Conn, []*x509.Certificate, string, error) {
	servers := slices.Clone(st.Stomp.Servers)
	rand.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] })
	tried := make(map[string]bool)
	var errs []error
	for _, addr := range servers {
		if tried[addr] {
			continue
		}
		tried[addr] = true
		conn, chain, err := sd.s.dial(ctx, addr, st.Peer)
		if err == nil {
			return conn, chain, addr, nil
		}
		if ctx.Err() != nil {
			return nil, nil, "", ctx.Err()
		}
		errs = append(errs, err)
	}
	return nil, nil, "", errors.Join(errs...)
}

// dial connects to one server of a peer and completes the TLS handshake.
func (s *Service) dial(ctx context.Context, addr string, p *node.Peer) (*tls.Conn, []*x509.Certificate, error) {
	tcp, err := (&net.Dialer{Timeout: s.cfg.ConnectTimeout}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	var chain []*x509.Certificate
	conn := tls.Client(tcp, clientTLS(s.cfg.Certificate, p, s.cfg.Now, func(c []*x509.Certificate) { chain = c }))
	ctx, cancel := context.WithTimeout(ctx, s.cfg.HandshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		tcp.Close()
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no TLS handshake within %v", s.cfg.HandshakeTimeout)
		}
		return nil, nil, fmt.Errorf("%s: %w", addr, err)
	}
	return conn, chain, nil
}
