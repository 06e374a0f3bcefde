package link_test

import (
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"peerlink/link/linktest"
)

// Silent connections that use up the file descriptors do not keep a peer waiting: they
// are closed as fast as others are accepted.
func TestOutOfFileDescriptors(t *testing.T) {
	t.Parallel()
	const silent = 400
	files := &scarceFiles{}
	files.left.Store(1 << 20)
	authority, honest, _ := trio(t, linktest.Embedded, func(n *linktest.Node) {
		n.Wrap = func(l net.Listener) net.Listener { files.Listener = l; return files }
	})
	flows(t, authority, honest, 1)
	files.left.Store(40)
	for range silent {
		conn, err := net.Dial("tcp", authority.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	start := time.Now()
	conn, err := dialAs(honest, authority)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	// With a pause for each earlier connection, it would be 1.8 s at least.
	if took := time.Since(start); took > time.Second {
		t.Errorf("the peer's handshake took %v", took)
	}
	if files.refused.Load() == 0 {
		t.Error("there were always file descriptors left")
	}
}

// scarceFiles is a listener of a process that has few file descriptors left.
type scarceFiles struct {
	net.Listener
	left    atomic.Int64
	refused atomic.Int64
}

func (s *scarceFiles) Accept() (net.Conn, error) {
	if s.left.Load() <= 0 {
		s.refused.Add(1)
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	conn, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	s.left.Add(-1)
	return &scarceConn{Conn: conn, free: sync.OnceFunc(func() { s.left.Add(1) })}, nil
}

type scarceConn struct {
	net.Conn
	free func()
}

func (c *scarceConn) Close() error {
	err := c.Conn.Close()
	c.free()
	return err
}
