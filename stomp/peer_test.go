package stomp

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// patience is how long a test on a real network waits for an expected event.
const patience = 10 * time.Second

// peer is the other side of a connection, controlled by a test. Its methods may be
// called from any goroutine: on an error, the test is marked as failed but continues.
type peer struct {
	t  *testing.T
	nc net.Conn
	r  *Reader
}

func newPeer(t *testing.T, nc net.Conn) *peer {
	t.Cleanup(func() { nc.Close() })
	return &peer{t, nc, NewReader(nc, Limits{})}
}

// raw sends bytes.
func (p *peer) raw(s string) {
	p.t.Helper()
	if _, err := io.WriteString(p.nc, s); err != nil {
		p.t.Errorf("peer: %v", err)
	}
}

// send sends a frame without a body.
func (p *peer) send(command string, nameValue ...string) {
	p.t.Helper()
	b, err := appendFrame(nil, NewFrame(command, nameValue...))
	if err != nil {
		p.t.Errorf("peer: %v", err)
		return
	}
	p.raw(string(b))
}

// expect reads a frame and checks its command and some of its headers.
func (p *peer) expect(command string, nameValue ...string) *Frame {
	p.t.Helper()
	f, err := p.r.ReadFrame()
	if err != nil {
		p.t.Errorf("peer: expected %s: %v", command, err)
		return &Frame{}
	}
	if f.Command != command {
		p.t.Errorf("peer: got %+v, want %s", f, command)
		return f
	}
	for _, h := range NewFrame(command, nameValue...).Headers {
		if v, ok := f.Get(h.Name); !ok || v != h.Value {
			p.t.Errorf("peer: %s has %s:%q (%v), want %q", command, h.Name, v, ok, h.Value)
		}
	}
	return f
}

// expectEnd checks that the other side has closed, without sending a frame before.
func (p *peer) expectEnd() {
	p.t.Helper()
	if f, err := p.r.ReadFrame(); !errors.Is(err, io.EOF) {
		p.t.Errorf("peer: got %v, %v, want the end", f, err)
	}
}

// tcp returns both ends of a connection over the loopback interface.
func tcp(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- nc
	}()
	a, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if b = <-accepted; b == nil {
		t.FailNow()
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// tcpPeer returns a connection over the loopback interface, and the peer at its other
// end.
func tcpPeer(t *testing.T) (net.Conn, *peer) {
	t.Helper()
	a, b := tcp(t)
	b.SetDeadline(time.Now().Add(patience))
	return a, newPeer(t, b)
}

// pipePeer returns a connection in memory, and the peer at its other end. Data written
// at one end has been read at the other when Write returns.
func pipePeer(t *testing.T) (net.Conn, *peer) {
	a, b := net.Pipe()
	return a, newPeer(t, b)
}

// within fails the test if f takes longer than patience.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s did not happen in %v", what, patience)
	}
}

// protocolReason returns the reason of a ProtocolError, or fails the test.
func protocolReason(t *testing.T, err error) string {
	t.Helper()
	var violation *ProtocolError
	if !errors.As(err, &violation) {
		t.Fatalf("got %v, want a ProtocolError", err)
	}
	return violation.Reason
}
