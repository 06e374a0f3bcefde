package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"peerlink/node"
)

// maxAddresses is how many addresses of one name are tried.
const maxAddresses = 4

// connect tries the peer's servers, in random order, until one answers. Servers
// that are listed more than once come first more often.
func (sd *sender) connect(ctx context.Context, st *peerState) (conn *peerConn, addr string, err error) {
	servers := slices.Clone(st.Stomp.Servers)
	rand.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] })
	tried := make(map[string]bool)
	var errs []error
	groups := sd.peer.size.groups(time.Now())
	defer func() {
		if ctx.Err() == nil && sd.peer.size.note(groups, err, time.Now()) {
			sd.logThrottled(sd.log, slog.LevelWarn, "connected with a classical key exchange only: the way to the peer seems to lose large packets, such as those of a post-quantum key exchange", "server", addr)
		}
	}()
	for _, addr := range servers {
		if tried[addr] {
			continue
		}
		tried[addr] = true
		conn, err := sd.s.dial(ctx, addr, st.Peer, groups)
		if err == nil {
			return conn, addr, nil
		}
		if ctx.Err() != nil {
			return nil, "", ctx.Err()
		}
		errs = append(errs, err)
	}
	return nil, "", errors.Join(errs...)
}

// dial connects to one server of a peer and completes the TLS handshake. Of a
// name with addresses of both families, the one that connects first is used
// (RFC 8305, by [net.Dialer]). But an address that takes connections may be of no
// use all the same: something else answers there now, or the way to it swallows
// packets as large as those of a handshake. Then the name's other addresses are
// tried as well, before anybody waits.
func (s *Service) dial(ctx context.Context, addr string, p *node.Peer, groups []tls.CurveID) (*peerConn, error) {
	conn, used, err := s.dialOne(ctx, addr, p, groups)
	if err == nil {
		return conn, nil
	}
	errs := []error{naming(addr, err)}
	if used == nil {
		return nil, errs[0] // no address of the name takes connections
	}
	for _, other := range s.otherAddresses(ctx, addr, used) {
		conn, _, err := s.dialOne(ctx, other, p, groups)
		if err == nil {
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		errs = append(errs, naming(addr, naming(other, err)))
	}
	return nil, errors.Join(errs...)
}

// naming makes an error name the server that it is about.
func naming(addr string, err error) error {
	if strings.Contains(err.Error(), addr) {
		return err
	}
	return fmt.Errorf("%s: %w", addr, err)
}

// dialOne is dial without other addresses of a name. It returns the address that was
// used, nil if none took the connection.
func (s *Service) dialOne(ctx context.Context, addr string, p *node.Peer, groups []tls.CurveID) (conn *peerConn, used net.Addr, err error) {
	tcp, err := (&net.Dialer{Timeout: s.cfg.ConnectTimeout}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	conn, err = s.greet(ctx, tcp, p, groups)
	return conn, tcp.RemoteAddr(), err
}

// greet completes the TLS handshake with a peer's server, or closes the
// connection.
func (s *Service) greet(ctx context.Context, tcp net.Conn, p *node.Peer, groups []tls.CurveID) (*peerConn, error) {
	own := s.cfg.Certificate.clientChain(p.SubCA)
	conn := &peerConn{own: own.Leaf, wire: &wireConn{Conn: tcp}}
	conn.Conn = tls.Client(conn.wire, clientTLS(own, p, groups, s.cfg.Now, func(c []*x509.Certificate) { conn.chain = c }))
	ctx, cancel := context.WithTimeout(ctx, s.cfg.HandshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		tcp.Close()
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("%w within %v", errNoHandshake, s.cfg.HandshakeTimeout)
		}
		return nil, err
	}
	conn.wire.begin()
	return conn, nil
}

// otherAddresses are those of a server's name, without the one that was used. Those
// of the other family come first: what is wrong with one way is most often wrong
// with its whole family. An address has no others.
func (s *Service) otherAddresses(ctx context.Context, addr string, used net.Addr) []string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	was, ok := used.(*net.TCPAddr)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ConnectTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil // it was found a moment ago; the next attempt will report it
	}
	usedIP := was.AddrPort().Addr().Unmap()
	var near, far []string
	for _, ip := range ips {
		ip = ip.Unmap()
		switch other := net.JoinHostPort(ip.String(), port); {
		case ip == usedIP:
		case ip.Is4() == usedIP.Is4():
			near = append(near, other)
		default:
			far = append(far, other)
		}
	}
	others := append(far, near...)
	return others[:min(len(others), maxAddresses-1)]
}
