//go:build linux

package faulttest

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// wire is a TCP proxy in front of a node's server that simulates network faults.
type wire struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed when rules are replaced
	rules   rules
	conns   map[*wireConn]struct{}
}

// rules are the faults of connections. The zero rules forward everything.
type rules struct {
	refuse    bool   // new connections are reset
	duplicate bool   // everything sent on a new connection is also sent on a second one
	ways      [2]way // to the server, to the client
}

// way describes what happens to the bytes in one direction.
type way struct {
	hold    bool          // nothing is forwarded, and nothing is read
	swallow bool          // bytes are read and dropped, and the connection never recovers
	delay   time.Duration // for each piece
	trickle bool          // one byte per second
	tear    bool          // half of the next piece, then the connection is reset
}

const (
	toServer = iota
	toClient
)

// wireConn is one connection through the wire.
type wireConn struct {
	wire           *wire
	client, server *net.TCPConn
	closing        chan struct{}
	close          func()
	abandoned      atomic.Bool // the client is gone, and the server is not notified
}

func newWire(target string) (*wire, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &wire{listener: l, target: target, changed: make(chan struct{}), conns: make(map[*wireConn]struct{})}
	w.wg.Go(w.accept)
	return w, nil
}

func (w *wire) addr() string { return w.listener.Addr().String() }

// end closes all connections and the listener.
func (w *wire) end() {
	w.listener.Close()
	w.each((*wireConn).cut)
	w.wg.Wait()
}

// set replaces the rules, for existing connections and new ones.
func (w *wire) set(r rules) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rules = r
	close(w.changed)
	w.changed = make(chan struct{})
}

// now returns the rules, and a channel that is closed when they are replaced.
func (w *wire) now() (rules, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rules, w.changed
}

// each calls do for all open connections, and returns their number.
func (w *wire) each(do func(*wireConn)) int {
	w.mu.Lock()
	var all []*wireConn
	for c := range w.conns {
		all = append(all, c)
	}
	w.mu.Unlock()
	for _, c := range all {
		do(c)
	}
	return len(all)
}

func (w *wire) accept() {
	for {
		nc, err := w.listener.Accept()
		if err != nil {
			return
		}
		client := nc.(*net.TCPConn)
		w.wg.Go(func() { w.serve(client) })
	}
}

// serve serves one connection until both sides have closed it.
func (w *wire) serve(client *net.TCPConn) {
	r, _ := w.now()
	if r.refuse {
		reset(client)
		return
	}
	nc, err := net.Dial("tcp", w.target)
	if err != nil {
		reset(client) // as if there were no proxy
		return
	}
	c := &wireConn{wire: w, client: client, server: nc.(*net.TCPConn), closing: make(chan struct{})}
	c.close = sync.OnceFunc(func() { close(c.closing) })
	var second net.Conn
	if r.duplicate {
		if second, err = net.Dial("tcp", w.target); err == nil {
			defer second.Close()
			w.wg.Go(func() { _, _ = io.Copy(io.Discard, second) })
		}
	}
	w.mu.Lock()
	w.conns[c] = struct{}{}
	w.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { c.pump(toServer, c.server, c.client, second) })
	both.Go(func() { c.pump(toClient, c.client, c.server, nil) })
	both.Wait()
	c.cut()
	w.mu.Lock()
	delete(w.conns, c)
	w.mu.Unlock()
}

// pump forwards bytes in one direction until the connection ends, and then closes that
// direction.
func (c *wireConn) pump(direction int, to, from *net.TCPConn, second net.Conn) {
	buf := make([]byte, 16<<10)
	lost := false // dropped bytes are missing forever
	for {
		r, changed := c.wire.now()
		if r.ways[direction].hold {
			select {
			case <-changed:
			case <-c.closing:
				return
			}
			continue
		}
		n, err := from.Read(buf)
		r, _ = c.wire.now()
		lost = lost || r.ways[direction].swallow
		if !lost {
			if second != nil {
				_, _ = second.Write(buf[:n])
			}
			if !c.forward(direction, to, buf[:n]) {
				// The other side is gone. The sender may be notified by the other
				// direction, or not at all.
				lost = true
			}
		}
		if err != nil {
			if direction == toClient || !c.abandoned.Load() {
				_ = to.CloseWrite()
			}
			return
		}
	}
}

// forward writes at the speed that the rules specify.
func (c *wireConn) forward(direction int, to *net.TCPConn, b []byte) bool {
	for len(b) > 0 {
		r, changed := c.wire.now()
		n, pause, tear := len(b), time.Duration(0), false
		switch way := r.ways[direction]; {
		case way.hold:
			select {
			case <-changed:
			case <-c.closing:
				return false
			}
			continue
		case way.trickle:
			n, pause = 1, time.Second
		case way.delay > 0:
			pause = way.delay
		case way.tear:
			n, tear = len(b)/2, true
		}
		if pause > 0 {
			select {
			case <-time.After(pause):
			case <-changed:
				continue
			case <-c.closing:
				return false
			}
		}
		if _, err := to.Write(b[:n]); err != nil {
			return false
		}
		if tear {
			c.reset()
			return false
		}
		b = b[n:]
	}
	return true
}

// cut closes both sides in good order, at any position in a frame.
func (c *wireConn) cut() {
	c.close()
	c.client.Close()
	c.server.Close()
}

// reset resets both sides.
func (c *wireConn) reset() {
	c.close()
	reset(c.client)
	reset(c.server)
}

// abandon resets the client's side. The server is not notified, and receives nothing
// more.
func (c *wireConn) abandon() {
	c.abandoned.Store(true)
	reset(c.client)
}

func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	c.Close()
}
