package stomp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// WriteTimeout is how long the peer may take to accept a write, which may be all that is
	// queued.
	WriteTimeout = 60 * time.Second

	// maxQueued is how many bytes may be queued for the writer before WriteFrame
	// blocks.
	maxQueued = 256 << 10

	// errorWait is how long ReadFrame waits for an ERROR of the peer after a write has
	// failed.
	errorWait = time.Second
)

// Conn is a connection that carries frames. All methods are safe for concurrent use,
// except that only one goroutine at a time may call ReadFrame (which Accept calls as
// well). A Conn must be closed, whatever error has occurred.
type Conn struct {
	nc     net.Conn
	limits Limits
	reader *Reader

	wake       chan struct{} // has an element while there may be work for the writer
	closed     chan struct{} // closed by closeWith
	writerDone chan struct{} // closed by the writer

	mu           sync.Mutex
	changed      sync.Cond     // signaled when queued shrinks, and when err is set
	queued       []byte        // frames queued for the writer
	err          error         // why no more frames can be queued; the first reason stays
	writeErr     error         // why the writer has ended
	ending       bool          // closed or being closed: only the frames in queued may still be written
	readErr      error         // why no more is read from nc
	beatInterval time.Duration // interval of our heart-beats; 0: none
	maxSilence   time.Duration // how long the peer may send nothing; 0: forever
	heartBeat    HeartBeat     // the intervals agreed on
	opened       bool          // the opening handshake is complete
	raw          bool          // headers are not escaped, see [encoder]
	inFrame      bool          // a part of a frame has been received
	frameEnd     time.Time     // when the rest must have been received; zero: no read has waited for it yet
}

// NewConn returns a Conn on nc, which it then owns. The limits apply to frames read and
// written.
func NewConn(nc net.Conn, l Limits) *Conn {
	c := &Conn{
		nc:         nc,
		limits:     l.orDefault(),
		wake:       make(chan struct{}, 1),
		closed:     make(chan struct{}),
		writerDone: make(chan struct{}),
	}
	c.changed.L = &c.mu
	c.reader = NewReader(connReader{c}, l)
	go c.writeLoop()
	return c
}

// StartHeartBeat starts the heart-beats in both directions, with the intervals agreed on
// with the peer, see [HeartBeat.Negotiate]. It must be called when the opening handshake
// is complete, unless Accept has done so.
func (c *Conn) StartHeartBeat(agreed HeartBeat) {
	c.mu.Lock()
	c.opened, c.beatInterval, c.maxSilence, c.heartBeat = true, agreed.beatInterval(), agreed.maxSilence(), agreed
	if c.err == nil && c.readErr == nil {
		c.setReadDeadline() // for a ReadFrame in progress
	}
	c.mu.Unlock()
	c.wakeWriter()
}

// HeartBeat returns the intervals agreed on with the peer: zero before the opening handshake is
// complete.
func (c *Conn) HeartBeat() HeartBeat {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heartBeat
}

// ReadFrame returns the next frame. The error is one of [Reader.ReadFrame],
// [ErrSilent], [ErrSlow] or [ErrStopped], or why the connection is closed or could not
// be written to: [ErrClosed], [ErrStalled], or an error of the network. After an error
// no more frames can be read, but frames can be written until the Conn is closed.
func (c *Conn) ReadFrame() (*Frame, error) {
	if err := c.closeReason(); err != nil {
		return nil, err // even if the reader has buffered frames
	}
	err := c.reader.skipHeartBeats()
	if err == nil {
		c.setInFrame(true)
		var f *Frame
		if f, err = c.reader.readRest(); err == nil {
			c.setInFrame(false)
			return f, nil
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var violation *ProtocolError
	switch {
	case errors.As(err, &violation):
		return nil, err
	case c.readErr != nil:
		return nil, c.readErr
	case c.err != nil:
		return nil, c.err
	case errors.Is(err, os.ErrDeadlineExceeded) && !c.frameEnd.IsZero() && !time.Now().Before(c.frameEnd):
		return nil, slowError(c.limits.frameTime())
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, silentError(c.maxSilence)
	case err == io.EOF:
		return nil, err
	default:
		return nil, fmt.Errorf("stomp: read: %w", err)
	}
}

// closeReason returns why the connection is closed or being closed, or nil.
func (c *Conn) closeReason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return c.err
	}
	return nil
}

// StopReading makes ReadFrame return [ErrStopped] once it has returned the frames that
// have been received already. Frames can still be written.
func (c *Conn) StopReading() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.readErr == nil {
		c.stopReading(ErrStopped)
	}
}

// stopReading stops reading from nc, and interrupts a ReadFrame in progress. The caller
// holds mu.
func (c *Conn) stopReading(reason error) {
	c.readErr = reason
	c.nc.SetReadDeadline(time.Unix(1, 0))
}

// connReader is the source of the Conn's Reader: it sets the deadline of each read when
// the read begins. So only the time in which a read waits for the peer counts, and a slow
// user of the Conn does not make the peer appear silent.
type connReader struct{ *Conn }

func (c connReader) Read(p []byte) (int, error) {
	if err := c.beforeRead(); err != nil {
		return 0, err
	}
	return c.nc.Read(p)
}

func (c connReader) beforeRead() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.readErr != nil:
		return c.readErr
	case c.err != nil:
		// A write has failed. An ERROR that explains it may be read until the deadline
		// that was set then.
	default:
		if c.inFrame && c.frameEnd.IsZero() {
			c.frameEnd = time.Now().Add(c.limits.frameTime())
		}
		c.setReadDeadline()
	}
	return nil
}

// setReadDeadline sets the deadline of a read to the time at which the peer will have been
// silent for too long, or too slow with a frame. The caller holds mu.
func (c *Conn) setReadDeadline() {
	var deadline time.Time
	if c.maxSilence > 0 {
		deadline = time.Now().Add(c.maxSilence)
	}
	if !c.frameEnd.IsZero() && (deadline.IsZero() || c.frameEnd.Before(deadline)) {
		deadline = c.frameEnd
	}
	c.nc.SetReadDeadline(deadline)
}

func (c *Conn) setInFrame(in bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inFrame, c.frameEnd = in, time.Time{}
}

// WriteFrame queues f to be written, and blocks while too much is queued. A nil error
// does not mean that the peer has received f. The error is [ErrUnsendable], which
// concerns f only, or why the connection is closed or could not be written to:
// [ErrClosed], [ErrStalled], or an error of the network.
func (c *Conn) WriteFrame(f *Frame) error {
	return c.write(context.Background(), func(dst []byte) ([]byte, error) {
		return encoder{c.limits, c.raw}.appendFrame(dst, f)
	})
}

// write waits until the queue is not full, and then calls encode to append to it. Frames
// are written in the order of the calls of encode, and none of a frame's bytes before
// encode has returned.
func (c *Conn) write(ctx context.Context, encode func(dst []byte) ([]byte, error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queued) >= maxQueued {
		stop := context.AfterFunc(ctx, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.changed.Broadcast()
		})
		defer stop()
		for len(c.queued) >= maxQueued && c.err == nil && ctx.Err() == nil {
			c.changed.Wait()
		}
	}
	if c.err != nil {
		return c.err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	queued, err := encode(c.queued)
	if err != nil {
		return err
	}
	c.queued = queued
	c.wakeWriter()
	return nil
}

func (c *Conn) wakeWriter() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// writeLoop writes queued frames until the connection ends, and a heart-beat when none
// was queued for an interval.
func (c *Conn) writeLoop() {
	defer close(c.writerDone)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	timer.Stop() // until heart-beats are started
	var batch []byte
	for {
		idle := false
		select {
		case <-c.wake:
		case <-timer.C:
			idle = true
		case <-c.closed:
			return
		}
		c.mu.Lock()
		batch, c.queued = c.queued, batch[:0]
		if idle {
			c.queued = nil // frees a buffer that a flood has made large
		}
		ending, beat := c.ending, c.beatInterval
		c.changed.Broadcast()
		c.mu.Unlock()

		if len(batch) == 0 && idle {
			batch = []byte{'\n'}
		}
		if len(batch) > 0 {
			if err := c.writeBatch(batch); err != nil {
				c.writeFailed(err)
				return
			}
		}
		if ending {
			return
		}
		if beat > 0 {
			timer.Reset(beat)
		} else {
			timer.Stop()
		}
	}
}

func (c *Conn) writeBatch(batch []byte) error {
	c.nc.SetWriteDeadline(time.Now().Add(WriteTimeout))
	_, err := c.nc.Write(batch)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.dropUnsent()
		return stalledError(WriteTimeout)
	}
	if err != nil {
		return fmt.Errorf("stomp: write: %w", err)
	}
	c.clearWriteDeadline()
	return nil
}

// clearWriteDeadline removes the deadline of the last write: TLS may write by itself
// before the next write, for example to answer a key update, and such a write must not
// fail because that deadline has passed. Once nc is being closed, the deadline is left as
// it is, because the close needs one.
func (c *Conn) clearWriteDeadline() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.closed:
	default:
		c.nc.SetWriteDeadline(time.Time{})
	}
}

// writeFailed records the error of a write. The connection is not closed yet, because the
// peer may have sent an ERROR that explains the failure, and closing the connection could
// destroy the ERROR before it is read.
func (c *Conn) writeFailed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeErr = err
	if c.err == nil {
		c.err = err
		if c.readErr == nil {
			c.nc.SetReadDeadline(time.Now().Add(errorWait))
		}
	}
	c.changed.Broadcast()
}
