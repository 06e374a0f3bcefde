package linktest

import (
	"net"
	"slices"
	"sync"
	"time"
)

// Line is a listener that counts the handshakes that its node begins, and that can be
// cut like a network. It must be set up before it is used.
type Line struct {
	net.Listener
	// Apart makes connections to different addresses of this machine come from
	// different addresses: the source address is the one that was dialed. Otherwise all
	// come from 127.0.0.1 on loopback.
	Apart bool

	mu    sync.Mutex
	cut   bool
	conns map[*lineConn]struct{}
	begun []time.Time
}

// Accept waits for the next connection. There is none while the line is cut.
func (l *Line) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &lineConn{Conn: conn, line: l}
		if l.add(c) {
			return c, nil
		}
		c.reset()
	}
}

func (l *Line) add(c *lineConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return false
	}
	if l.conns == nil {
		l.conns = make(map[*lineConn]struct{})
	}
	l.conns[c] = struct{}{}
	return true
}

// Cut ends all connections, and new ones until [Line.Mend].
func (l *Line) Cut() {
	l.mu.Lock()
	l.cut = true
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	for c := range conns {
		c.reset()
	}
}

// Mend undoes [Line.Cut].
func (l *Line) Mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
}

// Begun returns when the node has begun its handshakes after since.
func (l *Line) Begun(since time.Time) []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, _ := slices.BinarySearchFunc(l.begun, since, time.Time.Compare)
	return slices.Clone(l.begun[i:])
}

// Busiest returns the maximum number of moments, which are in order, within a period.
func Busiest(moments []time.Time, within time.Duration) (most int) {
	first := 0
	for i, t := range moments {
		for t.Sub(moments[first]) >= within {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

type lineConn struct {
	net.Conn
	line  *Line
	begin sync.Once
}

// Write records the time of the first call: the server begins its part of the handshake
// with its ServerHello.
func (c *lineConn) Write(p []byte) (int, error) {
	c.begin.Do(func() {
		c.line.mu.Lock()
		defer c.line.mu.Unlock()
		c.line.begun = append(c.line.begun, time.Now())
	})
	return c.Conn.Write(p)
}

func (c *lineConn) RemoteAddr() net.Addr {
	remote, ok := c.Conn.RemoteAddr().(*net.TCPAddr)
	local, okLocal := c.Conn.LocalAddr().(*net.TCPAddr)
	if !c.line.Apart || !ok || !okLocal {
		return c.Conn.RemoteAddr()
	}
	return &net.TCPAddr{IP: local.IP, Port: remote.Port}
}

func (c *lineConn) Close() error {
	c.line.mu.Lock()
	delete(c.line.conns, c)
	c.line.mu.Unlock()
	return c.Conn.Close()
}

// reset closes the connection at once with a RST.
func (c *lineConn) reset() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // on an error, there is a FIN instead
	}
	c.Conn.Close()
}
