package link

import (
	"errors"
	"net"
	"sync/atomic"
	"time"

	"peerlink/stomp"
)

// A peer may send overheadAtOnce bytes that carry no data (bytes read from the
// connection that TLS does not return), and in addition half as many as it sends data,
// and overheadPerSecond. A TLS record has an overhead of 22 bytes, so a message in its
// own record takes a tenth of its share, and heart-beats take a hundredth of the rate.
// (overheadAtOnce also covers bytes that TLS has read and not returned yet.) Only a
// record for each byte, or endless key updates, cause more.
const (
	overheadAtOnce    = 128 << 10
	overheadPerSecond = 4 << 10
)

var errOverhead = errors.New("the other side sends TLS records with next to no data in them")

// wireConn is the connection below TLS. After the handshake, it compares the bytes read
// with those that TLS returns. A write without a deadline gets one: TLS itself writes
// without one, a peer can cause such writes (by key updates) and then not read, and
// during such a write the connection can not even be closed.
type wireConn struct {
	net.Conn
	hasDeadline atomic.Bool               // the user of the connection has set a write deadline
	since       atomic.Pointer[time.Time] // when the handshake was completed; nil before
	read        atomic.Int64              // bytes since then
	data        atomic.Int64              // bytes that TLS has returned
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

// SetWriteDeadline sets the deadline of writes. The zero time sets the default
// deadline, because a write without a deadline may be in progress.
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
