package stomp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"time"
)

// DefaultWindow is how many messages a [Client] has in flight at most.
const DefaultWindow = 1000

// Message is what clients send. What Type and Body mean is not the business of
// this package.
type Message struct {
	Type        string // the type header; clients must set it
	ContentType string // the content-type header; when empty, application/octet-stream
	Body        []byte
}

const defaultContentType = "application/octet-stream"

// ClientConfig says how a [Client] introduces itself and what it sends to.
type ClientConfig struct {
	Host        string  // host header of STOMP
	Login       *string // login header, if any
	Passcode    *string // passcode header, if any
	Destination string  // destination header of every SEND

	HeartBeat      HeartBeat     // what to offer and to ask for
	ConnectTimeout time.Duration // limit of the opening handshake; 0: DefaultConnectTimeout
	Window         int           // most messages sent and not confirmed; 0: DefaultWindow

	// OnReceipt, unless nil, is called each time more messages are confirmed: the
	// first n that were sent on this connection. It is called from one
	// goroutine, with growing n, never after Done is closed. It must not block,
	// nor call methods of the Client.
	OnReceipt func(n uint64)
}

// Client is the sending end of a session. All methods are safe for concurrent
// use. A Client must be closed, by Disconnect or by Close.
type Client struct {
	conn *Conn
	cfg  ClientConfig

	turn    chan struct{} // holds a token while somebody sends
	leaving bool          // DISCONNECT was sent; guarded by the write turn
	room    chan struct{} // holds a token after confirmed has grown

	sent      atomic.Uint64 // number of the last message written
	farewell  atomic.Uint64 // receipt of DISCONNECT; 0 before it was sent
	confirmed atomic.Uint64 // number of the last message confirmed; only run changes it
	repeated  allowance     // of receipts for that message; belongs to run

	done chan struct{} // closed when run ends
	err  error         // why run has ended; may be read when done is closed
}

// NewClient opens a session on nc, which from then on belongs to the Client.
// The end of ctx interrupts the opening and has no effect later. On an error nc
// is closed: a [*ServerError] when the server refuses, [ErrConnectTimeout], a
// [*ProtocolError], [ErrUnsendable] when the configuration does not fit into a
// frame, the cause of the end of ctx, or an error of the network.
func NewClient(ctx context.Context, nc net.Conn, cfg ClientConfig) (*Client, error) {
	if cfg.Window <= 0 {
		cfg.Window = DefaultWindow
	}
	headers := []string{"host", cfg.Host}
	if cfg.Login != nil {
		headers = append(headers, "login", *cfg.Login)
	}
	if cfg.Passcode != nil {
		headers = append(headers, "passcode", *cfg.Passcode)
	}
	ctx, cancel := withConnectTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	c := &Client{
		conn: NewConn(nc, DefaultLimits()),
		cfg:  cfg,
		turn: make(chan struct{}, 1),
		room: make(chan struct{}, 1),
		done: make(chan struct{}),

		repeated: newAllowance(),
	}
	if err := c.conn.connect(ctx, cfg.HeartBeat, headers...); err != nil {
		return nil, err
	}
	go c.run()
	return c, nil
}

// Send hands over the next message to be sent, and returns its number: 1 for
// the first on this connection. It blocks while the window or the write buffer
// is full. On an error nothing was sent and no number used: the error is
// [ErrUnsendable] when the message can not be sent on any connection, the cause
// of the end of ctx, or why the session has ended, see [Client.Err].
func (c *Client) Send(ctx context.Context, m Message) (n uint64, err error) {
	if m.Type == "" {
		return 0, unsendablef("message has no type")
	}
	if m.ContentType == "" {
		m.ContentType = defaultContentType
	}
	if err := c.takeTurn(ctx); err != nil {
		return 0, err
	}
	defer c.endTurn()
	if c.leaving {
		return 0, ErrClosed
	}
	if err := c.awaitWindow(ctx); err != nil {
		return 0, err
	}
	n = c.sent.Load() + 1
	err = c.write(ctx, func(dst []byte) ([]byte, error) {
		dst, err := AppendFrame(dst, &Frame{
			Command: "SEND",
			Headers: []Header{
				{"destination", c.cfg.Destination},
				{"type", m.Type},
				{"content-type", m.ContentType},
				{"persistent", "true"},
				{"receipt", strconv.FormatUint(n, 10)},
			},
			Body: m.Body,
		})
		if err == nil {
			c.sent.Store(n) // before its receipt can come
		}
		return dst, err
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// Disconnect ends the session in good order: it sends DISCONNECT, waits until
// everything sent is confirmed, and closes the connection. When ctx ends before
// that, the connection is closed at once. The error says why something may be
// unconfirmed.
func (c *Client) Disconnect(ctx context.Context) error {
	err := c.sendDisconnect(ctx)
	if err == nil {
		select {
		case <-c.done:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	c.Close()
	<-c.done
	if c.err == nil { // the receipt may have come just in time
		return nil
	}
	if err == nil {
		err = c.err
	}
	return err
}

func (c *Client) sendDisconnect(ctx context.Context) error {
	if err := c.takeTurn(ctx); err != nil {
		return err
	}
	defer c.endTurn()
	if c.leaving {
		return nil
	}
	c.leaving = true
	return c.write(ctx, func(dst []byte) ([]byte, error) {
		// A number that no message has, so that its receipt can not be taken
		// for that of a message.
		n := c.sent.Load() + 1
		c.farewell.Store(n)
		return AppendFrame(dst, NewFrame("DISCONNECT", "receipt", strconv.FormatUint(n, 10)))
	})
}

// Done is closed when the session has ended, for whatever reason.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err says why the session has ended. It is nil as long as it has not, and
// after a Disconnect that succeeded. Otherwise it is the server's
// [*ServerError], a [*ProtocolError], [ErrSilent], [ErrStalled], [ErrClosed]
// after Close, [io.EOF] (wrapped) when the server closed the connection without
// a word, or another error of the network.
func (c *Client) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// Close closes the connection at once. Calling it again does nothing. Done is
// closed soon after.
func (c *Client) Close() error { return c.conn.Close() }

// takeTurn waits until this goroutine is the only one that sends.
func (c *Client) takeTurn(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.done:
		return c.reason()
	}
}

func (c *Client) endTurn() { <-c.turn }

// awaitWindow waits until one more message may be in flight. Only who has the
// turn may call it.
func (c *Client) awaitWindow(ctx context.Context) error {
	for c.sent.Load()-c.confirmed.Load() >= uint64(c.cfg.Window) {
		select {
		case <-c.room:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.done:
			return c.reason()
		}
	}
	return nil
}

// write is Conn.write, but where the connection has ended, it waits for the
// reading side to find out why: the server may have sent an ERROR.
func (c *Client) write(ctx context.Context, encode func(dst []byte) ([]byte, error)) error {
	err := c.conn.write(ctx, encode)
	if err == nil || errors.Is(err, ErrUnsendable) || ctx.Err() != nil {
		return err
	}
	select {
	case <-c.done:
		return c.reason()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// reason says why nothing can be sent after the session has ended.
func (c *Client) reason() error {
	if c.err != nil {
		return c.err
	}
	return ErrClosed
}

// run handles what the server says, until the session ends.
func (c *Client) run() {
	defer close(c.done)
	defer c.conn.Close()
	for {
		f, err := c.conn.ReadFrame()
		if err != nil {
			c.err = c.explain(err)
			return
		}
		last, err := c.handle(f)
		if last || err != nil {
			c.err = err
			return
		}
	}
}

// handle handles one frame, and reports whether it is the last.
func (c *Client) handle(f *Frame) (last bool, err error) {
	switch f.Command {
	case "RECEIPT":
		return c.receipt(f)
	case "ERROR":
		e := serverErrorFrom(f)
		if n, ok := parseDecimal(e.ReceiptID); ok && n > c.confirmed.Load() && n <= c.sent.Load() {
			e.N = n
		}
		return true, e
	default:
		return true, protocolErrorf("unexpected command %.40s from a server", f.Command)
	}
}

// receipt handles a RECEIPT, which confirms its message and all before it, and
// reports whether it was that of DISCONNECT.
func (c *Client) receipt(f *Frame) (last bool, err error) {
	id, ok := f.Get("receipt-id")
	if !ok {
		return false, protocolErrorf("RECEIPT has no receipt-id")
	}
	n, ok := parseDecimal(id)
	farewell, sent, confirmed := c.farewell.Load(), c.sent.Load(), c.confirmed.Load()
	switch {
	case ok && n != 0 && n == farewell:
		last, n = true, sent
	case !ok || n == 0 || n > sent:
		return false, protocolErrorf("RECEIPT for %.40q, which was never sent", id)
	case n < confirmed:
		return false, protocolErrorf("RECEIPT for %d after the one for %d", n, confirmed)
	case n == confirmed && !last && !c.repeated.spend():
		return false, protocolErrorf("RECEIPT for %d again and again", n)
	}
	if n > confirmed {
		c.confirmed.Store(n)
		select {
		case c.room <- struct{}{}:
		default:
		}
		if c.cfg.OnReceipt != nil {
			c.cfg.OnReceipt(n)
		}
	}
	return last, nil
}

// explain says what an error of reading means for the session.
func (c *Client) explain(err error) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	unconfirmed := c.sent.Load() - c.confirmed.Load()
	if c.farewell.Load() != 0 && unconfirmed == 0 && errors.Is(err, io.EOF) {
		return nil // it could have said goodbye, but there is nothing left to say
	}
	return fmt.Errorf("stomp: server closed the connection with %d messages unconfirmed: %w", unconfirmed, err)
}
