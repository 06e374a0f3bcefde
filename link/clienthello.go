package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// maxClientHello is how many bytes a ClientHello may have, with the headers of
// its TLS records. Usual ones have 300 to 2,000.
const maxClientHello = 16 << 10

const (
	recordHeader    = 5  // bytes of a TLS record's header
	messageHeader   = 4  // bytes of a handshake message's header
	recordHandshake = 22 // content type of records with handshake messages
	messageHello    = 1  // type of the ClientHello among handshake messages
)

// readClientHello reads what a connection begins with until that is a whole
// ClientHello (RFC 8446, section 4.1.2), or can not become one. What it is has
// to be judged by others: this only makes certain that nothing is done for a
// client that says nothing.
func readClientHello(r io.Reader) ([]byte, error) {
	var b []byte
	var message []byte // the beginning of the handshake message
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
			break // crypto/tls reports what is wrong with it
		}
		length := int(binary.BigEndian.Uint16(header[3:]))
		if length == 0 || len(b)+length > maxClientHello {
			return nil, fmt.Errorf("the connection begins with a TLS record of %d bytes: expected a ClientHello of at most %d bytes", length, maxClientHello)
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
				break // the same
			}
			want = messageHeader + int(message[1])<<16 + int(message[2])<<8 + int(message[3])
		}
	}
	return b, nil
}

// helloStep is how many bytes are provided for before some of them have come: a
// client that announces much and sends nothing takes no more than this.
const helloStep = 2 << 10

// readMore reads n bytes behind those in b. The error is io.EOF only if nothing was
// read at all.
func readMore(b []byte, r io.Reader, n int) ([]byte, error) {
	for n > 0 {
		step := min(n, helloStep)
		// Without the room to spare that append makes: there are thousands of these.
		grown := make([]byte, len(b)+step)
		copy(grown, b)
		if m, err := io.ReadFull(r, grown[len(b):]); err != nil {
			if errors.Is(err, io.EOF) && len(b)+m > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		b = grown
		n -= step
	}
	return b, nil
}

// helloConn is a connection whose ClientHello was read already. It calls
// answered when that is used up and more is wanted for the first time: then the
// server has sent its part of the handshake.
type helloConn struct {
	net.Conn
	remote   net.Addr // the client's; a load balancer may be between
	hello    []byte   // read and not used yet
	answered func()
	once     sync.Once
}

func (c *helloConn) Read(p []byte) (int, error) {
	if len(c.hello) > 0 {
		n := copy(p, c.hello)
		c.hello = c.hello[n:]
		return n, nil
	}
	c.once.Do(c.answered)
	return c.Conn.Read(p)
}

// RemoteAddr returns the client's address.
func (c *helloConn) RemoteAddr() net.Addr { return c.remote }

// SetLinger sets the linger time of the TCP connection.
func (c *helloConn) SetLinger(seconds int) error { return setLinger(c.Conn, seconds) }
