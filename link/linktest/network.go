package linktest

import (
	"net"
	"slices"
	"sync"
	"time"
)

// Network is a listener that records when its node begins handshakes, and that can be cut
// like a network. Its fields must be set before it is used.
type Network struct {
	net.Listener
	// DistinctSources makes connections to different addresses of this machine come from
	// different addresses: the source address is the one that was dialed. Otherwise all
	// come from 127.0.0.1 on loopback.
	DistinctSources bool

	mu    sync.Mutex
	cut   bool
	conns map[*networkConn]struct{}
	begun []time.Time
}

// Accept waits for the next connection. Connections made while the network is cut are reset.
func (l *Network) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &networkConn{Conn: conn, network: l}
		if l.add(c) {
			return c, nil
		}
		c.reset()
	}
}

func (l *Network) add(c *networkConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return false
	}
	if l.conns == nil {
		l.conns = make(map[*networkConn]struct{})
	}
	l.conns[c] = struct{}{}
	return true
}

// Cut ends all connections, and new ones until [Network.Mend].
func (l *Network) Cut() {
	l.mu.Lock()
	l.cut = true
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	for c := range conns {
		c.reset()
	}
}

// Mend undoes [Network.Cut].
func (l *Network) Mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
}

// Begun returns the times, not before since, at which the node has begun handshakes.
func (l *Network) Begun(since time.Time) []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, _ := slices.BinarySearchFunc(l.begun, since, time.Time.Compare)
	return slices.Clone(l.begun[i:])
}

// Busiest returns the maximum number of moments in any period of the length within. The
// moments must be sorted.
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

type networkConn struct {
	net.Conn
	network *Network
	begin   sync.Once
}

// Write records the time of the first call: the server begins its part of the handshake
// with its ServerHello.
func (c *networkConn) Write(p []byte) (int, error) {
	c.begin.Do(func() {
		c.network.mu.Lock()
		defer c.network.mu.Unlock()
		c.network.begun = append(c.network.begun, time.Now())
	})
	return c.Conn.Write(p)
}

func (c *networkConn) RemoteAddr() net.Addr {
	remote, ok := c.Conn.RemoteAddr().(*net.TCPAddr)
	local, okLocal := c.Conn.LocalAddr().(*net.TCPAddr)
	if !c.network.DistinctSources || !ok || !okLocal {
		return c.Conn.RemoteAddr()
	}
	return &net.TCPAddr{IP: local.IP, Port: remote.Port}
}

func (c *networkConn) Close() error {
	c.network.mu.Lock()
	delete(c.network.conns, c)
	c.network.mu.Unlock()
	return c.Conn.Close()
}

// reset closes the connection at once with a RST.
func (c *networkConn) reset() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // on an error, there is a FIN instead
	}
	c.Conn.Close()
}
