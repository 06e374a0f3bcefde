package link

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"

	proxyproto "github.com/pires/go-proxyproto"
)

// maxClientHello is the maximum size of a ClientHello in bytes, with the headers of its
// TLS records. Usual ones have 300 to 2,000 bytes.
const maxClientHello = 16 << 10

const (
	recordHeader    = 5  // bytes of a TLS record's header
	messageHeader   = 4  // bytes of a handshake message's header
	recordHandshake = 22 // content type of records with handshake messages
	messageHello    = 1  // type of the ClientHello among handshake messages
)

// readClientHello reads the beginning of a connection until it is a complete
// ClientHello (RFC 8446, section 4.1.2), or cannot become one, and returns what it has
// read. Validating it is left to crypto/tls: readClientHello only ensures that no work is
// done for a client that sends nothing.
func readClientHello(r io.Reader) ([]byte, error) {
	var b []byte
	var message []byte // the handshake message, up to the end of its header
	size, want := 0, messageHeader
	for size < want {
		start := len(b)
		var err error
		if b, err = readMore(b, r, recordHeader); err != nil {
			return nil, err
		}
		header := b[start:]
		if header[0] != recordHandshake {
			if start == 0 && (bytes.HasPrefix(header, []byte("PROXY")) || bytes.HasPrefix(header, []byte("\r\n\r\n\x00"))) {
				return nil, errProxyHeader
			}
			break // crypto/tls reports what is wrong with the record
		}
		length := int(binary.BigEndian.Uint16(header[3:]))
		if length == 0 || len(b)+length > maxClientHello {
			return nil, fmt.Errorf("the ClientHello has a TLS record of %d bytes after the first %d bytes: expected records that are not empty, of at most %d bytes together", length, start, maxClientHello)
		}
		if b, err = readMore(b, r, length); err != nil {
			return nil, err
		}
		body := b[start+recordHeader:]
		size += len(body)
		if len(message) < messageHeader {
			message = append(message, body[:min(len(body), messageHeader-len(message))]...)
			if len(message) < messageHeader {
				continue
			}
			if message[0] != messageHello {
				break // crypto/tls reports what is wrong with the message
			}
			want = messageHeader + int(message[1])<<16 + int(message[2])<<8 + int(message[3])
		}
	}
	return b, nil
}

// helloStep is how many bytes are allocated before they are received: a client that
// announces a long record and sends nothing takes no more memory than this.
const helloStep = 2 << 10

// readMore appends n bytes from r to b. The error is io.EOF only if b is empty and
// nothing was read.
func readMore(b []byte, r io.Reader, n int) ([]byte, error) {
	for n > 0 {
		step := min(n, helloStep)
		if len(b)+step > cap(b) {
			// Unlike append, this allocates hardly any spare capacity: there may be thousands of buffers. For many
			// short records a little is needed, so that not each of them copies those before it.
			b = append(make([]byte, 0, max(len(b)+step, len(b)*5/4)), b...)
		}
		if m, err := io.ReadFull(r, b[len(b):len(b)+step]); err != nil {
			if errors.Is(err, io.EOF) && len(b)+m > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		b = b[:len(b)+step]
		n -= step
	}
	return b, nil
}

// helloConn is a connection whose ClientHello has been read already. It calls
// onAwaitingClient at the first Read after the ClientHello has been returned: then the
// server has sent its part of the handshake, and waits for the client.
type helloConn struct {
	net.Conn
	remote           net.Addr // the client's, also behind a load balancer
	hello            []byte   // read from Conn and not returned by Read yet
	onAwaitingClient func()
	once             sync.Once
}

func (c *helloConn) Read(p []byte) (int, error) {
	if len(c.hello) > 0 {
		n := copy(p, c.hello)
		c.hello = c.hello[n:]
		return n, nil
	}
	c.once.Do(c.onAwaitingClient)
	return c.Conn.Read(p)
}

// RemoteAddr returns the client's address.
func (c *helloConn) RemoteAddr() net.Addr { return c.remote }

// SetLinger sets the linger time of the TCP connection.
func (c *helloConn) SetLinger(seconds int) error { return setLinger(c.Conn, seconds) }

// proxyBuffer is the size of the read buffer for a PROXY header: the longest header of
// version 1 fits.
const proxyBuffer = 256

// errProxyHeader is returned for a connection that begins with a PROXY header
// and does not come from one of [Config.ProxyFrom].
var errProxyHeader = errors.New("the connection begins with a PROXY header, which is accepted only from the addresses in --proxy-from")

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
