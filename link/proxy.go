package link

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"

	proxyproto "github.com/pires/go-proxyproto"
)

// proxyBuffer is the size of the read buffer for a PROXY header: the longest header of
// version 1 fits.
const proxyBuffer = 256

// errProxyHeader is returned for a connection that begins with a PROXY header
// and does not come from one of [Config.ProxyFrom].
var errProxyHeader = errors.New("it begins with a PROXY header: these are accepted only from the addresses in --proxy-from")

func init() {
	// nginx writes IPv4 addresses into a TCP6 header if it accepts by IPv4 and forwards
	// by IPv6, or vice versa.
	proxyproto.V1AcceptIPv4InTCP6 = true
}

// behindProxy reports whether a connection comes from a load balancer that sends
// PROXY headers.
func (a *acceptor) behindProxy(conn net.Conn) bool {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return false
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	return slices.ContainsFunc(a.cfg.ProxyFrom, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// readProxyHeader reads a PROXY header of version 1 or 2 and returns the client's
// address. If the load balancer connects on its own behalf, as for health checks, that
// is the address of the connection itself. The bytes after the header must be read from
// r.
func readProxyHeader(conn net.Conn, r *bufio.Reader) (net.Addr, error) {
	if _, err := r.Peek(1); err != nil {
		return nil, err
	}
	h, err := proxyproto.Read(r)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // the header has begun
	}
	if err != nil {
		return nil, fmt.Errorf("connections from the addresses in --proxy-from must begin with a PROXY header: %w", err)
	}
	if h.Command.IsLocal() || h.SourceAddr == nil {
		return conn.RemoteAddr(), nil
	}
	return h.SourceAddr, nil
}
