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

// defaultWindow is the default of [ClientConfig].Window.
const defaultWindow = 1000

// Message is a message from a client. This package does not interpret Type and Body.
type Message struct {
	Type        string // the type header; clients must set it
	ContentType string // the content-type header; when empty, application/octet-stream
	Body        []byte
}

const defaultContentType = "application/octet-stream"

// ClientConfig holds the parameters of a [Client].
type ClientConfig struct {
	Host        string  // host header of STOMP
	Login       *string // login header, if any
	Passcode    *string // passcode header, if any
	Destination string  // destination header of every SEND
	// Headers are added to STOMP. Servers ignore those that they do not know.
	Headers []Header

	HeartBeat      HeartBeat     // what to offer and to request
	ConnectTimeout time.Duration // limit of the opening handshake; 0: DefaultConnectTimeout
	Window         int           // maximum number of unconfirmed messages; 0: 1,000

	// OnReceipt, unless nil, is called whenever more messages are confirmed: the first
	// n sent on this connection. It is called from one goroutine, with growing n, and
	// never after Done is closed. It must not block, nor call methods of the Client.
	OnReceipt func(n uint64)
}

// Client is the sending side of a session. All methods are safe for concurrent use. A
// Client must be closed, by Disconnect or by Close.
type Client struct {
	conn *Conn
	cfg  ClientConfig

	sendSlot      chan struct{} // has an element while a goroutine sends
	disconnecting bool          // Disconnect was called, so nothing more is sent; guarded by sendSlot
	windowFreed   chan struct{} // contains an element after confirmed has increased

	sent              atomic.Uint64 // number of the last message queued to be written
	disconnectReceipt atomic.Uint64 // receipt number of DISCONNECT; 0 before that is queued to be written
	confirmed         atomic.Uint64 // number of the last message confirmed; written by run only
	repeatedReceipts  allowance     // of receipts for the last message confirmed; used by run only

	done chan struct{} // closed when run ends
	err  error         // why run has ended; may be read once done is closed
}

// NewClient opens a session on nc, which the Client then owns. The end of ctx
// interrupts the opening handshake, and has no effect later. On an error nc is closed.
// The error is a [*ServerError] if the server refuses, [ErrConnectTimeout], a
// [*ProtocolError], [ErrUnsendable] if the configuration does not fit into a frame, the
// cause of the end of ctx, or an error of the network.
func NewClient(ctx context.Context, nc net.Conn, cfg ClientConfig) (*Client, error) {
	if cfg.Window <= 0 {
		cfg.Window = defaultWindow
	}
	headers := []string{"host", cfg.Host}
	if cfg.Login != nil {
		headers = append(headers, "login", *cfg.Login)
	}
	if cfg.Passcode != nil {
		headers = append(headers, "passcode", *cfg.Passcode)
	}
	for _, h := range cfg.Headers {
		headers = append(headers, h.Name, h.Value)
	}
	ctx, cancel := withConnectTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	c := &Client{
		conn:        NewConn(nc, DefaultLimits()),
		cfg:         cfg,
		sendSlot:    make(chan struct{}, 1),
		windowFreed: make(chan struct{}, 1),
		done:        make(chan struct{}),

		repeatedReceipts: newAllowance(),
	}
	if err := c.conn.connect(ctx, cfg.HeartBeat, headers...); err != nil {
		return nil, err
	}
	go c.run()
	return c, nil
}

// Send sends the next message and returns its number: 1 for the first on this
// connection. It blocks while the window or the write buffer is full. On an error
// nothing was sent and no number was used. The error is [ErrUnsendable] if the message
// cannot be sent on any connection, the cause of the end of ctx, or why the session
// has ended, see [Client.Err].
func (c *Client) Send(ctx context.Context, m Message) (n uint64, err error) {
	if m.Type == "" {
		return 0, unsendablef("message has no type")
	}
	if m.ContentType == "" {
		m.ContentType = defaultContentType
	}
	if err := c.acquireSend(ctx); err != nil {
		return 0, err
	}
	defer c.releaseSend()
	if c.disconnecting {
		return 0, ErrClosed
	}
	if err := c.awaitWindow(ctx); err != nil {
		return 0, err
	}
	n = c.sent.Load() + 1
	err = c.write(ctx, func(dst []byte) ([]byte, error) {
		dst, err := appendFrame(dst, &Frame{
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
			c.sent.Store(n) // before its receipt can be received
		}
		return dst, err
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// Disconnect ends the session in good order: it sends DISCONNECT, waits until
// everything sent is confirmed, and closes the connection. If ctx ends before that, the
// connection is closed at once. If messages may be unconfirmed, Disconnect returns the
// reason.
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
	if c.err == nil { // the receipt of DISCONNECT was received, possibly just before the connection was closed
		return nil
	}
	if err == nil {
		err = c.err
	}
	return err
}

func (c *Client) sendDisconnect(ctx context.Context) error {
	if err := c.acquireSend(ctx); err != nil {
		return err
	}
	defer c.releaseSend()
	if c.disconnecting {
		return nil
	}
	c.disconnecting = true
	return c.write(ctx, func(dst []byte) ([]byte, error) {
		// This number belongs to no message, so that the receipt cannot be mistaken
		// for one of a message.
		n := c.sent.Load() + 1
		c.disconnectReceipt.Store(n)
		return appendFrame(dst, NewFrame("DISCONNECT", "receipt", strconv.FormatUint(n, 10)))
	})
}

// HeartBeat returns the heart-beat intervals agreed on with the server.
func (c *Client) HeartBeat() HeartBeat { return c.conn.HeartBeat() }

// Done returns a channel that is closed when the session has ended, for whatever
// reason.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns why the session has ended. It is nil while the session lasts, and after a
// successful Disconnect. Otherwise it is the server's [*ServerError], a
// [*ProtocolError], [ErrSilent], [ErrSlow], [ErrStalled], [ErrClosed] after Close,
// [io.EOF] (wrapped) if the server closed the connection without an ERROR, or another
// error of the network.
func (c *Client) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// Close closes the connection at once. Further calls do nothing. Done is closed soon
// after.
func (c *Client) Close() error { return c.conn.Close() }

// acquireSend waits until this goroutine is the only one that sends.
func (c *Client) acquireSend(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case c.sendSlot <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.done:
		return c.endErr()
	}
}

func (c *Client) releaseSend() { <-c.sendSlot }

// awaitWindow waits until one more message may be in flight. The caller holds sendSlot.
func (c *Client) awaitWindow(ctx context.Context) error {
	for c.sent.Load()-c.confirmed.Load() >= uint64(c.cfg.Window) {
		select {
		case <-c.windowFreed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.done:
			return c.endErr()
		}
	}
	return nil
}

// write is like Conn.write, but if the connection has ended, it waits for the goroutine
// that reads and returns its error: the server may have sent an ERROR.
func (c *Client) write(ctx context.Context, encode func(dst []byte) ([]byte, error)) error {
	err := c.conn.write(ctx, encode)
	if err == nil || errors.Is(err, ErrUnsendable) || ctx.Err() != nil {
		return err
	}
	select {
	case <-c.done:
		return c.endErr()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// endErr returns why nothing can be sent after the session has ended.
func (c *Client) endErr() error {
	if c.err != nil {
		return c.err
	}
	return ErrClosed
}

// run handles the frames of the server until the session ends.
func (c *Client) run() {
	defer close(c.done)
	defer c.conn.Close()
	for {
		f, err := c.conn.ReadFrame()
		if err != nil {
			c.err = c.sessionErr(err)
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
		return c.handleReceipt(f)
	case "ERROR":
		e := serverErrorFrom(f)
		if n, ok := parseDecimal(e.ReceiptID); ok && n > c.confirmed.Load() && n <= c.sent.Load() {
			e.MessageNumber = n
		}
		return true, e
	default:
		return true, protocolErrorf("unexpected command %.40s from a server", f.Command)
	}
}

// handleReceipt handles a RECEIPT, which confirms its message and all messages before it, and
// reports whether it was that of DISCONNECT.
func (c *Client) handleReceipt(f *Frame) (last bool, err error) {
	id, ok := f.Get("receipt-id")
	if !ok {
		return false, protocolErrorf("RECEIPT has no receipt-id")
	}
	n, ok := parseDecimal(id)
	disconnectReceipt, sent, confirmed := c.disconnectReceipt.Load(), c.sent.Load(), c.confirmed.Load()
	switch {
	case ok && n != 0 && n == disconnectReceipt:
		last, n = true, sent
	case !ok || n == 0 || n > sent:
		return false, protocolErrorf("RECEIPT for %.40q, which was never sent", id)
	case n < confirmed:
		return false, protocolErrorf("RECEIPT for %d after the one for %d", n, confirmed)
	case n == confirmed && !last && !c.repeatedReceipts.take():
		return false, protocolErrorf("RECEIPT for %d repeated too often", n)
	}
	if n > confirmed {
		c.confirmed.Store(n)
		select {
		case c.windowFreed <- struct{}{}:
		default:
		}
		if c.cfg.OnReceipt != nil {
			c.cfg.OnReceipt(n)
		}
	}
	return last, nil
}

// sessionErr returns the error of the session for a read error.
func (c *Client) sessionErr(err error) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	unconfirmed := c.sent.Load() - c.confirmed.Load()
	if c.disconnectReceipt.Load() != 0 && unconfirmed == 0 && errors.Is(err, io.EOF) {
		return nil // everything is confirmed, so the missing receipt of DISCONNECT does not matter
	}
	return fmt.Errorf("stomp: server closed the connection with %d messages unconfirmed: %w", unconfirmed, err)
}
