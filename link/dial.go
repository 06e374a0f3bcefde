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
	"sync"
	"time"

	"peerlink/node"
)

// maxAddresses is how many addresses of one host name are tried.
const maxAddresses = 4

// connect tries the peer's servers, in random order, until a handshake succeeds. The
// more often a server is listed, the more likely it is tried first.
func (sd *sender) connect(ctx context.Context, st *peerState) (conn *peerConn, addr string, err error) {
	servers := slices.Clone(st.Stomp.Servers)
	rand.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] })
	tried := make(map[string]bool)
	var errs []error
	groups := sd.peer.packetSize.groups(time.Now())
	defer func() {
		if ctx.Err() == nil && sd.peer.packetSize.note(groups, err, time.Now()) {
			sd.logThrottled(sd.log, slog.LevelWarn, "connected with a classical key exchange only: the network path to the peer seems to drop large packets, such as those of a post-quantum key exchange", "server", addr)
		}
	}()
	for _, addr := range servers {
		if tried[addr] {
			continue
		}
		tried[addr] = true
		conn, err := sd.s.dial(ctx, addr, st.Peer, groups)
		if err == nil {
			sd.peer.stats.recordServer(addr, conn.chain[0], nil)
			sd.peer.stats.handshakes.Add(conn.took, time.Now())
			sd.peer.madeContact(st.Root)
			return conn, addr, nil
		}
		if ctx.Err() != nil {
			return nil, "", ctx.Err()
		}
		sd.peer.stats.recordServer(addr, nil, err)
		errs = append(errs, err)
	}
	return nil, "", errors.Join(errs...)
}

// dial connects to one server of a peer and completes the TLS handshake. If the host
// name has addresses of both families, the first one that connects is used (RFC 8305,
// by [net.Dialer]). The handshake may fail there all the same: another program may use
// the address, or the path may drop packets as large as those of a handshake. Then dial
// tries the other addresses of the name before it returns an error. (A proxy resolves the name,
// and chooses the address.)
func (s *shared) dial(ctx context.Context, addr string, p *node.Peer, groups []tls.CurveID) (*peerConn, error) {
	conn, used, err := s.dialOne(ctx, addr, p, groups)
	if err == nil {
		return conn, nil
	}
	errs := []error{withServer(addr, err)}
	if used == nil || s.cfg.Proxy != nil {
		return nil, errs[0] // none of the name's addresses accepts connections, or they are not known
	}
	for _, other := range s.otherAddresses(ctx, addr, used) {
		conn, _, err := s.dialOne(ctx, other, p, groups)
		if err == nil {
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		errs = append(errs, withServer(addr, withServer(other, err)))
	}
	return nil, errors.Join(errs...)
}

// withServer adds the address of the server to an error that does not contain it.
func withServer(addr string, err error) error {
	if strings.Contains(err.Error(), addr) {
		return err
	}
	return fmt.Errorf("%s: %w", addr, err)
}

// dialOne is like dial, but does not try other addresses of a name after a failed
// handshake. It returns the address used, or nil if there was no TCP connection.
func (s *shared) dialOne(ctx context.Context, addr string, p *node.Peer, groups []tls.CurveID) (conn *peerConn, used net.Addr, err error) {
	tcp, err := s.dialTCP(ctx, addr)
	if err != nil {
		return nil, nil, err
	}
	conn, err = s.clientHandshake(ctx, tcp, p, groups, func(tls.ConnectionState) {})
	return conn, tcp.RemoteAddr(), err
}

// dialTCP makes a TCP connection to a server of a peer, through the proxy if there is one, within
// [Config.ConnectTimeout].
func (s *shared) dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	if s.cfg.Proxy == nil {
		return (&net.Dialer{Timeout: s.cfg.ConnectTimeout}).DialContext(ctx, "tcp", addr)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ConnectTimeout)
	defer cancel()
	return s.cfg.Proxy.Dial(ctx, addr)
}

// clientHandshake completes the TLS handshake with a peer's server. It calls shown when the server
// has shown its certificates, before they are verified. On an error it closes the connection.
func (s *shared) clientHandshake(ctx context.Context, tcp net.Conn, p *node.Peer, groups []tls.CurveID, shown func(tls.ConnectionState)) (*peerConn, error) {
	own := s.clientChain(p)
	conn := &peerConn{own: own.Leaf, wire: &wireConn{Conn: tcp}}
	config := clientTLS(own, p, groups, s.cfg.Now, func(c []*x509.Certificate) { conn.chain = c })
	verify := config.VerifyConnection
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		shown(cs)
		return verify(cs)
	}
	conn.Conn = tls.Client(conn.wire, config)
	ctx, cancel := context.WithTimeout(ctx, s.cfg.HandshakeTimeout)
	defer cancel()
	begin := time.Now()
	if err := conn.HandshakeContext(ctx); err != nil {
		tcp.Close()
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("%w within %v", errTLSTimeout, s.cfg.HandshakeTimeout)
		}
		return nil, err
	}
	conn.took = time.Since(begin)
	conn.wire.begin()
	return conn, nil
}

// clientChain returns the chain that this node shows to the servers of a peer. It is empty if it can
// show none: without a server certificate, or a certificate from the peer.
func (s *shared) clientChain(p *node.Peer) *tls.Certificate {
	if s.cfg.Certificate == nil || p.SubCA == nil {
		return new(tls.Certificate)
	}
	return s.cfg.Certificate.clientChain(p.SubCA)
}

// otherAddresses returns the addresses of a server's host name other than used. The
// addresses of the other family come first, because a fault of the network path most
// often affects all addresses of a family. It returns nil if addr contains an IP address.
func (s *shared) otherAddresses(ctx context.Context, addr string, used net.Addr) []string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	usedTCP, ok := used.(*net.TCPAddr)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ConnectTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil // the name was resolved a moment ago; the next attempt reports the error
	}
	usedIP := usedTCP.AddrPort().Addr().Unmap()
	var sameFamily, otherFamily []string
	for _, ip := range ips {
		ip = ip.Unmap()
		switch other := net.JoinHostPort(ip.String(), port); {
		case ip == usedIP:
		case ip.Is4() == usedIP.Is4():
			sameFamily = append(sameFamily, other)
		default:
			otherFamily = append(otherFamily, other)
		}
	}
	others := append(otherFamily, sameFamily...)
	return others[:min(len(others), maxAddresses-1)]
}

// errTLSTimeout means that a TLS handshake was not complete in time.
var errTLSTimeout = errors.New("no TLS handshake")

const (
	// maxLargeHellos is how many consecutive attempts may time out before one is made
	// without a post-quantum key exchange. A post-quantum key share enlarges the
	// ClientHello to some 1,500 bytes. Some networks drop packets of that size, not
	// always with an ICMP error.
	maxLargeHellos = 2
	// classicalFor is how long a path is assumed to drop large packets after an attempt
	// with small packets has succeeded.
	classicalFor = time.Hour
)

// classical lists the key exchanges without post-quantum key shares, which need small
// packets only.
var classical = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384}

// packetSizeWatch detects whether the path to a peer drops large packets.
type packetSizeWatch struct {
	mu       sync.Mutex
	timeouts int       // attempts that timed out since the last success
	until    time.Time // when the post-quantum key exchange is offered again
}

// groups returns the key exchanges to offer in the next attempt, nil for all. Only the
// classical ones are offered before until, and in every third attempt while attempts time out.
func (s *packetSizeWatch) groups(now time.Time) []tls.CurveID {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Before(s.until) || s.timeouts > 0 && s.timeouts%(maxLargeHellos+1) == maxLargeHellos {
		return classical
	}
	return nil
}

// note records the result of an attempt with these groups. It reports whether this
// attempt has shown that large packets were the cause of timeouts, and that was not known.
func (s *packetSizeWatch) note(groups []tls.CurveID, err error, now time.Time) (found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(err, errTLSTimeout):
		s.timeouts++
		s.until = time.Time{}
	case err != nil: // the error is unrelated to the size
	case groups == nil:
		s.timeouts = 0
	default:
		found = !now.Before(s.until)
		s.timeouts = 0
		if found {
			s.until = now.Add(classicalFor)
		}
	}
	return found
}
