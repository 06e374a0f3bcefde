package stomp

import (
	"context"
	"io"
	"net"
	"time"
)

// CloseTimeout is how long sessions wait until their last frame is written and read by
// the peer.
const CloseTimeout = 5 * time.Second

// Bounds on what is read, and dropped, while the peer receives the last frame; the
// [Limits] of the connection do not apply to these bytes. A peer that has read the last
// frame is expected to send no more. lingerBytes is what a network of 10 MB/s transfers
// in the tenth of a second that this may take. Before the session is open, a peer sends
// nothing but its CONNECT.
const (
	lingerBytes         = 1 << 20
	lingerBytesUnopened = 64 << 10
	lingerTimeUnopened  = 2 * time.Second

	// lingerGrace is how long a peer that has sent more than these bounds allow may take
	// to read the last frame, while nothing is read from it. (The peer need not be at
	// fault: the kernel's buffers may contain more than lingerBytes.)
	lingerGrace = time.Second
)

// Close closes the connection without writing queued frames. If a CloseAfterFlush or Fail
// is in progress, Close waits until that has closed the connection. All calls that wait
// for the connection return [ErrClosed], or the earlier reason if writing had failed. The
// Conn's goroutine has ended when Close returns. Further calls do nothing.
func (c *Conn) Close() error {
	if c.closeReason() != nil {
		<-c.closed
	}
	return c.closeNow()
}

// closeNow is Close, but does not wait for a CloseAfterFlush or Fail in progress.
func (c *Conn) closeNow() error {
	err := c.closeWith(ErrClosed)
	<-c.writerDone
	return err
}

// closeWith closes the connection for a reason, unless it is closed already.
func (c *Conn) closeWith(reason error) error {
	if !c.markClosed(reason) {
		return nil
	}
	return c.nc.Close()
}

// markClosed records that the connection is closed, and why, and wakes all waiting calls.
// It returns false, and does nothing, if the connection was closed already.
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
	c.changed.Broadcast()
	return true
}

// CloseAfterFlush writes the queued frames, closes the sending direction, waits until
// the peer closes the other direction, and closes the connection. This takes at most the
// timeout, and less if the peer sends much meanwhile. Calls of other methods return
// [ErrClosed] meanwhile. If not everything was written, CloseAfterFlush returns the
// reason.
//
// Waiting for the peer is necessary: the kernel answers data that arrives at a closed
// connection with a reset, and a reset can destroy data that the peer has not read yet
// (STOMP 1.2, "Connection Lingering").
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
		c.dropUnsent()
		return stalledError(timeout)
	}
	if err := c.flushErr(); err != nil {
		return err
	}
	if nc, ok := c.nc.(interface{ CloseWrite() error }); ok && nc.CloseWrite() == nil {
		c.linger(until)
	}
	return nil
}

// linger waits until the peer closes its side, and drops what the peer still sends,
// within bounds. If the peer sends more, linger stops reading, and returns after
// lingerGrace.
func (c *Conn) linger(until time.Time) {
	limit := int64(lingerBytes)
	if !c.isOpened() {
		limit = lingerBytesUnopened
		if soon := time.Now().Add(lingerTimeUnopened); soon.Before(until) {
			until = soon
		}
	}
	c.nc.SetReadDeadline(until)
	if _, err := io.CopyN(io.Discard, c.nc, limit); err != nil {
		return // the peer has closed, or the time is over
	}
	time.Sleep(min(lingerGrace, time.Until(until)))
	c.dropUnsent()
}

func (c *Conn) isOpened() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opened
}

// dropUnsent makes the kernel drop unsent data when the connection is closed, instead of
// retrying for minutes. The peer then receives a reset at once.
func (c *Conn) dropUnsent() {
	nc := c.nc
	if secured, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = secured.NetConn()
	}
	if tcp, ok := nc.(interface{ SetLinger(seconds int) error }); ok {
		_ = tcp.SetLinger(0) // on an error, the kernel keeps the data
	}
}

// beginClosing stops all use of the connection except by the writer. It returns an
// error if the connection has failed, or is being closed already.
func (c *Conn) beginClosing() error {
	c.mu.Lock()
	if c.ending {
		err := c.err
		c.mu.Unlock()
		<-c.closed // another goroutine closes the connection, and must not be interrupted before its last frame is written
		return err
	}
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.err, c.ending = ErrClosed, true
	c.stopReading(ErrClosed)
	c.changed.Broadcast()
	c.wakeWriter()
	return nil
}

// flushErr returns why the writer has ended before everything was written, or nil.
func (c *Conn) flushErr() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writeErr == nil && len(c.queued) > 0 {
		return ErrClosed // another goroutine has closed the connection at once
	}
	return c.writeErr
}

// Fail sends an ERROR and closes the connection, in at most twice [CloseTimeout]. What
// does not fit into the limits of the connection is shortened (the message) or left out. If
// the ERROR was not written, Fail returns the reason.
func (c *Conn) Fail(e *ServerError) error { return c.sendLast(e.frame(c.encoder())) }

// encoder returns the encoder of the connection's frames.
func (c *Conn) encoder() encoder {
	c.mu.Lock()
	defer c.mu.Unlock()
	return encoder{c.limits, c.raw}
}

// sendLast writes one more frame, and closes the connection, in at most twice
// [CloseTimeout]. If the frame was not written, sendLast returns the reason.
func (c *Conn) sendLast(f *Frame) error {
	ctx, cancel := context.WithTimeout(context.Background(), CloseTimeout)
	defer cancel()
	err := c.write(ctx, func(dst []byte) ([]byte, error) { return encoder{c.limits, c.raw}.appendFrame(dst, f) })
	if closeErr := c.CloseAfterFlush(CloseTimeout); err == nil {
		err = closeErr
	}
	return err
}
