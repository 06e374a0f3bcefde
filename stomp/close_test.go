package stomp

import (
	"net"
	"strings"
	"testing"
	"time"
)

// If a client continues to send after it was refused, the server reads only a bounded
// number of bytes from it, fewer if its session was never opened, and then closes the
// connection. The test measures how many bytes the client can write until its writes
// fail. The client receives its ERROR nevertheless.
func TestFloodAfterRefusal(t *testing.T) {
	const kernelBuffers = 1 << 20 // more than the buffers below can hold together
	for _, tt := range []struct {
		name  string
		start func(t *testing.T, nc net.Conn, p *peer) (end func()) // end returns when the connection has ended
		most  int
	}{
		{"in a session", func(t *testing.T, nc net.Conn, p *peer) func() {
			s := serving(t, nc, p, ServerConfig{Destination: "/in"})
			p.raw("SUBSCRIBE\nid:0\n\n\x00")
			return func() { s.Next() }
		}, lingerBytes},
		{"before CONNECT", func(t *testing.T, nc net.Conn, p *peer) func() {
			p.raw("SEND\n\n\x00")
			return func() { NewServer(t.Context(), nc, ServerConfig{}) }
		}, lingerBytesUnopened},
		{"not admitted", func(t *testing.T, nc net.Conn, p *peer) func() {
			c := NewConn(nc, Limits{})
			return func() { c.Fail(&ServerError{Message: "no"}) }
		}, lingerBytesUnopened},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nc, p := tcpPeer(t)
			for _, end := range []net.Conn{nc, p.nc} {
				end.(*net.TCPConn).SetReadBuffer(64 << 10)
				end.(*net.TCPConn).SetWriteBuffer(64 << 10)
			}
			end := tt.start(t, nc, p)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				end()
			}()
			p.expect("ERROR")
			written, chunk := 0, []byte(strings.Repeat("\n", 32<<10))
			start := time.Now()
			for {
				n, err := p.nc.Write(chunk)
				if written += n; err != nil {
					break
				}
				if written > 64<<20 {
					t.Fatal("the client can write more than 64 MiB")
				}
			}
			if written > tt.most+kernelBuffers {
				t.Errorf("the client has written %d bytes, want at most %d", written, tt.most+kernelBuffers)
			}
			within(t, "the end", func() { <-ended })
			if took := time.Since(start); took > CloseTimeout-time.Second {
				t.Errorf("the connection was closed after %v, want at most %v", took, CloseTimeout-time.Second)
			}
		})
	}
}

// A client that has filled the kernel buffers before the end, and begins to read only
// then, receives its ERROR: the server does not close the connection immediately.
func TestErrorBehindFullBuffers(t *testing.T) {
	nc, p := tcpPeer(t)
	c := NewConn(nc, Limits{})
	p.nc.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	chunk := make([]byte, 256<<10)
	sent := 0
	for {
		n, err := p.nc.Write(chunk)
		if sent += n; err != nil {
			break
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Fail(&ServerError{Message: "no"}) }()
	p.expect("ERROR", "message", "no")
	p.expectEnd()
	p.nc.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	t.Logf("%d bytes were in flight", sent)
}
