package stomp

import (
	"context"
	"io"
	"net"
	"time"
)

// CloseTimeout is how long the sessions give their last frame to reach the
// peer.
const CloseTimeout = 5 * time.Second

// Bounds on what is still read of a peer that is to be told of the end; nobody looks
// at it, and nothing else holds it back. A peer that has read the last frame sends no
// more, and until then it may have sent what a line of 10 MB/s carries in a tenth of
// a second. Before the session is open, a peer has nothing to send but its CONNECT.
const (
	lingerBytes         = 1 << 20
	lingerBytesUnopened = 64 << 10
	lingerTimeUnopened  = 2 * time.Second

	// lingerGrace is how long a peer that has sent more is given to read the last
	// frame, while nothing is read of it. (What the buffers of the kernels hold can
	// be more than lingerBytes, and has been sent before the end.)
	lingerGrace = time.Second
)

// Close closes the connection at once, without regard for what is not yet
// written; only a CloseAfterFlush or Fail that is under way is waited for.
// Everybody who waits for the connection gets [ErrClosed], and the Conn's
// goroutine has ended when Close returns. Calling it again does nothing.
func (c *Conn) Close() error {
	if c.ended() != nil {
		<-c.closed
	}
	return c.closeNow()
}

func (c *Conn) closeNow() error {
	err := c.closeWith(ErrClosed)
	<-c.writerDone
	return err
}

// closeWith closes the connection for a reason, if it is not closed yet.
func (c *Conn) closeWith(reason error) error {
	if !c.markClosed(reason) {
		return nil
	}
	return c.nc.Close()
}

func (c *Conn) markClosed(reason error) (first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.closed:
		return false
	default:
	}
	close(c.closed)
	if c.err == nil {
		c.err = reason
	}
	c.ending, c.readErr = true, c.err
	c.room.Broadcast()
	return true
}

// CloseAfterFlush writes what has been handed over, tells the peer that nothing
// more comes, waits until the peer closes too, and closes the connection. All
// this takes no longer than the timeout, and less if the peer goes on sending.
// Others who use the connection get [ErrClosed] at once. The error says why not
// everything was written.
//
// To wait for the peer is necessary: the kernel answers data that arrives at a
// closed connection with a reset, and a reset can destroy what the peer has not
// yet read (STOMP 1.2, "Connection Lingering").
func (c *Conn) CloseAfterFlush(timeout time.Duration) error {
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	until := time.Now().Add(timeout)

	if err := c.beginClosing(); err != nil {
		c.closeNow()
		return err
	}
	defer c.closeNow()
	select {
	case <-c.writerDone:
	case <-deadline.C:
		c.abandon()
		return stalledError(timeout)
	}
	if err := c.flushed(); err != nil {
		return err
	}
	if nc, ok := c.nc.(interface{ CloseWrite() error }); ok && nc.CloseWrite() == nil {
		c.linger(until)
	}
	return nil
}

// linger waits until the peer closes its side, and drops what it still sends, within
// bounds. A peer that sends more is not read any more, and cut a moment later.
func (c *Conn) linger(until time.Time) {
	most := int64(lingerBytes)
	if !c.isOpened() {
		most = lingerBytesUnopened
		if soon := time.Now().Add(lingerTimeUnopened); soon.Before(until) {
			until = soon
		}
	}
	c.nc.SetReadDeadline(until)
	if _, err := io.CopyN(io.Discard, c.nc, most); err != nil {
		return // the peer has closed, or its time is over
	}
	time.Sleep(min(lingerGrace, time.Until(until)))
	c.abandon()
}

func (c *Conn) isOpened() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opened
}

// abandon makes the kernel drop, when the connection is closed, what the peer does
// not take, instead of keeping it and trying for minutes. The peer learns of the end
// at once.
func (c *Conn) abandon() {
	nc := c.nc
	if secured, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = secured.NetConn()
	}
	if tcp, ok := nc.(interface{ SetLinger(seconds int) error }); ok {
		_ = tcp.SetLinger(0) // on an error it is as it was
	}
}

// beginClosing lets nobody but the writer go on. The error says why the
// connection can not be used any more already.
func (c *Conn) beginClosing() error {
	c.mu.Lock()
	if c.ending {
		err := c.err
		c.mu.Unlock()
		<-c.closed // by somebody else, whose last frame an interruption could destroy
		return err
	}
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.err, c.ending = ErrClosed, true
	c.stopReading(ErrClosed)
	c.room.Broadcast()
	c.wakeWriter()
	return nil
}

// flushed says, after the writer has ended, why not everything was written.
func (c *Conn) flushed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writeErr == nil && len(c.gathered) > 0 {
		return ErrClosed // by somebody who did not want to wait
	}
	return c.writeErr
}

// Fail sends an ERROR and closes the connection, in no more than twice
// [CloseTimeout]. What does not fit into [DefaultLimits] is shortened (the
// message) or left out. The error says why the ERROR was not written.
func (c *Conn) Fail(e *ServerError) error { return c.sendLast(DefaultLimits(), e.frame()) }

// sendLast writes one more frame, and closes the connection.
func (c *Conn) sendLast(l Limits, f *Frame) error {
	ctx, cancel := context.WithTimeout(context.Background(), CloseTimeout)
	defer cancel()
	err := c.write(ctx, func(dst []byte) ([]byte, error) { return l.appendFrame(dst, f) })
	if closeErr := c.CloseAfterFlush(CloseTimeout); err == nil {
		err = closeErr
	}
	return err
}
