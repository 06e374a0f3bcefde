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
	// WriteTimeout is how long the peer may take to accept what is written to
	// it.
	WriteTimeout = 60 * time.Second

	// maxGathered is how many bytes may wait for the writer before WriteFrame
	// blocks.
	maxGathered = 256 << 10

	// lastWords is how long, after a write has failed, the peer's explanation
	// may take.
	lastWords = time.Second
)

// Conn is a connection that carries frames. All methods are safe for concurrent
// use, except that only one goroutine at a time may call ReadFrame (which
// Accept does as well). A Conn must be closed, whatever went wrong with it.
type Conn struct {
	nc     net.Conn
	limits Limits
	reader *Reader

	wake       chan struct{} // holds a token while there may be work for the writer
	closed     chan struct{} // closed by closeWith
	writerDone chan struct{} // closed by the writer

	mu       sync.Mutex
	room     sync.Cond     // signalled when gathered shrinks, and when err is set
	gathered []byte        // frames waiting for the writer
	err      error         // why there can be no more frames; the first reason stays
	writeErr error         // why the writer has given up
	ending   bool          // only what is gathered is still written
	readErr  error         // why nothing more is taken from nc
	beat     time.Duration // interval of our heart-beats; 0: none
	silence  time.Duration // how long the peer may be silent; 0: for ever
	opened   bool          // the opening handshake is complete
	inFrame  bool          // some bytes of a frame have come, but not all
	frameEnd time.Time     // when the others must be there; zero: nobody has waited for them yet
}

// NewConn makes a Conn of nc, which from then on belongs to it. The limits hold
// for what is read and for what is written.
func NewConn(nc net.Conn, l Limits) *Conn {
	c := &Conn{
		nc:         nc,
		limits:     l.orDefault(),
		wake:       make(chan struct{}, 1),
		closed:     make(chan struct{}),
		writerDone: make(chan struct{}),
	}
	c.room.L = &c.mu
	c.reader = NewReader(connReader{c}, l)
	go c.writeLoop()
	return c
}

// StartHeartBeat is called when the opening handshake is complete: it makes both
// directions of heart-beats happen from now on, as agreed with the peer, see
// [HeartBeat.Negotiate].
func (c *Conn) StartHeartBeat(agreed HeartBeat) {
	c.mu.Lock()
	c.opened, c.beat, c.silence = true, agreed.Send, agreed.silence()
	if c.err == nil && c.readErr == nil {
		c.setReadDeadline() // for a ReadFrame that is waiting now
	}
	c.mu.Unlock()
	c.wakeWriter()
}

// ReadFrame returns the next frame. Errors are those of [Reader.ReadFrame],
// [ErrSilent], [ErrSlow], and [ErrStopped]; or why the connection is closed or could not be
// written to: [ErrClosed], [ErrStalled], or an error of the network. After an
// error nothing more can be read, but frames can be written until the Conn is
// closed.
func (c *Conn) ReadFrame() (*Frame, error) {
	if err := c.ended(); err != nil {
		return nil, err // even if there are frames in the reader's buffer
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
		return nil, silentError(c.silence)
	case err == io.EOF:
		return nil, err
	default:
		return nil, fmt.Errorf("stomp: read: %w", err)
	}
}

// ended says why the connection is closed, or being closed.
func (c *Conn) ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return c.err
	}
	return nil
}

// StopReading makes ReadFrame return [ErrStopped] once it has returned the
// frames that have been received already. Writing goes on.
func (c *Conn) StopReading() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.readErr == nil {
		c.stopReading(ErrStopped)
	}
}

// stopReading takes nothing more from nc, and sends a ReadFrame away that waits
// for it. The caller holds mu.
func (c *Conn) stopReading(reason error) {
	c.readErr = reason
	c.nc.SetReadDeadline(time.Unix(1, 0))
}

// connReader is the Conn as its Reader sees it: it sets the deadline of each
// read. Time counts only while there is nothing to be read, so a slow consumer
// does not make its peer look silent.
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
		// A write has failed. There may be an ERROR to read that says why,
		// until the deadline that was set then.
	default:
		if c.inFrame && c.frameEnd.IsZero() {
			c.frameEnd = time.Now().Add(c.limits.frameTime())
		}
		c.setReadDeadline()
	}
	return nil
}

// setReadDeadline makes a read end when the peer is silent for too long, or too
// slow with a frame. The caller holds mu.
func (c *Conn) setReadDeadline() {
	var deadline time.Time
	if c.silence > 0 {
		deadline = time.Now().Add(c.silence)
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

// WriteFrame hands over f to be written, and blocks while too much is waiting
// already. That it returns nil does not mean that the peer has f. The error is
// [ErrUnsendable], which is about f only, or why the connection is closed or
// could not be written to: [ErrClosed], [ErrStalled], or an error of the
// network.
func (c *Conn) WriteFrame(f *Frame) error {
	return c.write(context.Background(), func(dst []byte) ([]byte, error) {
		return c.limits.appendFrame(dst, f)
	})
}

// write waits for room and then lets encode append to what is gathered. Calls
// of encode are ordered like the bytes, and finish before any of their bytes
// are written.
func (c *Conn) write(ctx context.Context, encode func(dst []byte) ([]byte, error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.gathered) >= maxGathered {
		stop := context.AfterFunc(ctx, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.room.Broadcast()
		})
		defer stop()
		for len(c.gathered) >= maxGathered && c.err == nil && ctx.Err() == nil {
			c.room.Wait()
		}
	}
	if c.err != nil {
		return c.err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	gathered, err := encode(c.gathered)
	if err != nil {
		return err
	}
	c.gathered = gathered
	c.wakeWriter()
	return nil
}

func (c *Conn) wakeWriter() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// writeLoop writes what has gathered, again and again, and a heart-beat when
// there was nothing for an interval.
func (c *Conn) writeLoop() {
	defer close(c.writerDone)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	timer.Stop() // until there is something to beat for
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
		batch, c.gathered = c.gathered, batch[:0]
		if idle {
			c.gathered = nil // what a flood has made large is given back
		}
		ending, beat := c.ending, c.beat
		c.room.Broadcast()
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
		c.abandon()
		return stalledError(WriteTimeout)
	}
	if err != nil {
		return fmt.Errorf("stomp: write: %w", err)
	}
	c.clearWriteDeadline()
	return nil
}

// clearWriteDeadline lets no deadline lie in the past between two writes: where nc is
// secured, it may write by itself meanwhile, to answer a change of keys for example,
// and has to bound that by itself. Once nc is being closed, the deadline is that of
// the close.
func (c *Conn) clearWriteDeadline() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.closed:
	default:
		c.nc.SetWriteDeadline(time.Time{})
	}
}

// writeFailed ends the writing. The connection is not closed yet, since the
// peer may have said why it takes nothing more, and closing it could destroy
// that.
func (c *Conn) writeFailed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeErr = err
	if c.err == nil {
		c.err = err
		if c.readErr == nil {
			c.nc.SetReadDeadline(time.Now().Add(lastWords))
		}
	}
	c.room.Broadcast()
}
