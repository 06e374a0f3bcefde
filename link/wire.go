package link

import (
	"errors"
	"net"
	"sync/atomic"
	"time"

	"peerlink/stomp"
)

// A peer may send this many bytes that carry no data, as TLS counts it, besides half
// as many as it sends data. A TLS record has 22 of them, so a message in a record of
// its own takes a tenth of that, and heart-beats a hundredth of the rate. (The first
// number also has room for what TLS has read and not handed out yet.) What makes
// more of them is a record for each byte, or the change of keys without end.
const (
	overheadAtOnce    = 128 << 10
	overheadPerSecond = 4 << 10
)

var errOverhead = errors.New("the other side sends TLS records with next to no data in them")

// wireConn is the connection below TLS. Once the handshake is complete, it compares
// what is read of it with what TLS hands out. A write without a deadline gets one:
// such are those of TLS itself, which a peer can cause (by a change of keys) and then
// not read, and during which the connection can not even be closed.
type wireConn struct {
	net.Conn
	hasDeadline atomic.Bool               // the user of the connection has set one for writes
	since       atomic.Pointer[time.Time] // when the handshake was complete
	read        atomic.Int64              // bytes since then
	data        atomic.Int64              // bytes that TLS has handed out
}

// begin is called when the handshake is complete.
func (c *wireConn) begin() {
	now := time.Now()
	c.since.Store(&now)
}

func (c *wireConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	since := c.since.Load()
	if since == nil {
		return n, err
	}
	data := c.data.Load()
	overhead := c.read.Add(int64(n)) - data
	if overhead > overheadAtOnce+data/2 && overhead > overheadAtOnce+data/2+int64(time.Since(*since).Seconds()*overheadPerSecond) {
		return 0, errOverhead
	}
	return n, err
}

// SetDeadline sets the deadline of reads and writes.
func (c *wireConn) SetDeadline(t time.Time) error {
	return errors.Join(c.Conn.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetWriteDeadline sets the deadline of writes. None, the zero time, is that of a
// write without one, because such a write may be under way.
func (c *wireConn) SetWriteDeadline(t time.Time) error {
	c.hasDeadline.Store(!t.IsZero())
	if t.IsZero() {
		t = time.Now().Add(stomp.WriteTimeout)
	}
	return c.Conn.SetWriteDeadline(t)
}

func (c *wireConn) Write(p []byte) (int, error) {
	if !c.hasDeadline.Load() {
		if err := c.SetWriteDeadline(time.Time{}); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(p)
}

// SetLinger sets the linger time of the TCP connection.
func (c *wireConn) SetLinger(seconds int) error { return setLinger(c.Conn, seconds) }
