package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"peerlink/internal/socket"
	"peerlink/internal/wait"
	"peerlink/stomp"
)

// clientWindow is how many messages a [Client] sends before it has seen the
// receipt of the first.
const clientWindow = 4096

// Client is a connection to the door, for commands and tests of this program.
// All methods are safe for concurrent use. A Client must be closed, by
// Disconnect or Close.
//
// One goroutine reads what the door says. A subscription with [AckAuto] whose
// Next is not called stops it, once too many messages wait; then receipts do
// not come either.
type Client struct {
	conn *stomp.Conn

	room    chan struct{} // holds a token for each message without receipt
	leave   func()        // closes leaving
	leaving chan struct{} // closed when messages are not wanted any more
	close   func() error
	done    chan struct{} // closed when the reading has ended

	mu            sync.Mutex
	last          uint64                         // receipt asked for last
	waiting       map[uint64]func(error)         // by receipt: called once; nil at the end
	subscriptions map[string]*ClientSubscription // by id
	acks          []string                       // to be written
	err           error                          // why the connection has ended

	ackBell wait.Signal
	acking  sync.Mutex     // keeps ACKs in order
	running sync.WaitGroup // the goroutines
}

// ErrUnconfirmed is reported for what the door had not confirmed when the
// connection ended: it may or may not be done.
var ErrUnconfirmed = errors.New("local: not confirmed before the connection ended")

// Dial connects to the door of the node with this state folder: by the Unix
// socket or, where there can be none, by TCP. It reports [ErrNotOpen] if no door
// is open.
//
// The passcode is shown to a process of the node's user only. After a crash,
// anybody may listen on the port of the door.
func Dial(ctx context.Context, stateDir string) (*Client, error) {
	a, err := readAddresses(stateDir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(stateDir, passcodeFile)
	secret, err := readPasscode(path)
	if errors.Is(err, fs.ErrNotExist) { // it lasts as long as the door
		return nil, fmt.Errorf("%w: %w; start \"peerlink serve\" again", ErrNotOpen, err)
	}
	if err != nil {
		return nil, err
	}
	nc, err := a.dial(ctx, stateDir)
	if err != nil {
		return nil, err
	}
	file, err := os.Stat(path)
	if err == nil {
		err = socket.CheckListener(nc, file)
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("the passcode is not shown: %w", err)
	}
	return newClient(ctx, nc, secret)
}

// dial connects to the door. Its Unix socket is in the state folder, where nobody
// else can listen. Its TCP port can be anybody's, except while the door is open:
// whoever can not have locked the state folder can not have the port.
func (a addresses) dial(ctx context.Context, stateDir string) (net.Conn, error) {
	network, address := "unix", a.Unix
	if a.Unix == "" {
		network, address = "tcp", a.TCP
		switch open, err := isOpen(stateDir); {
		case err != nil:
			return nil, err
		case !open:
			return nil, fmt.Errorf("%w: the service has ended without closing it; start \"peerlink serve\" again", ErrNotOpen)
		}
	}
	var dialer net.Dialer
	nc, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("%w: nobody answers there any more; start \"peerlink serve\" again: %w", ErrNotOpen, err)
	}
	return nc, nil
}

// newClient opens a session on nc, which then belongs to the Client.
func newClient(ctx context.Context, nc net.Conn, secret string) (*Client, error) {
	c := &Client{
		conn:          stomp.NewConn(nc, frameLimits()),
		room:          make(chan struct{}, clientWindow),
		leaving:       make(chan struct{}),
		done:          make(chan struct{}),
		waiting:       make(map[uint64]func(error)),
		subscriptions: make(map[string]*ClientSubscription),
		ackBell:       wait.NewSignal(),
	}
	c.leave = sync.OnceFunc(func() { close(c.leaving) })
	c.close = sync.OnceValue(func() error {
		c.leave()
		return c.conn.Close()
	})
	if err := c.connect(ctx, secret); err != nil {
		c.close()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: it is closing; start \"peerlink serve\" again: %w", ErrNotOpen, err)
		}
		return nil, fmt.Errorf("connect to the local door: %w", err)
	}
	c.running.Go(c.read)
	c.running.Go(c.acknowledge)
	return c, nil
}

// connect does the opening handshake.
func (c *Client) connect(ctx context.Context, secret string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, stomp.DefaultConnectTimeout, stomp.ErrConnectTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.close() })
	own := stomp.HeartBeat{Send: stomp.DefaultSend, Receive: stomp.DefaultReceive}
	answer, err := c.exchange(stomp.NewFrame("CONNECT",
		"accept-version", stomp.Version,
		"host", "localhost",
		"heart-beat", own.String(),
		"login", "peerlink",
		"passcode", secret,
	))
	if !stop() {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	if answer.Command != "CONNECTED" {
		return errorFrom(answer)
	}
	beat, _ := answer.Get("heart-beat")
	theirs, err := stomp.ParseHeartBeat(beat)
	if err != nil {
		return err
	}
	c.conn.StartHeartBeat(own.Negotiate(theirs))
	return nil
}

// exchange writes a frame and reads the answer.
func (c *Client) exchange(f *stomp.Frame) (*stomp.Frame, error) {
	if err := c.conn.WriteFrame(f); err != nil {
		return nil, err
	}
	return c.conn.ReadFrame()
}

// Send hands over a message for an outgoing exchange. It blocks while too many
// are not yet confirmed. If it returns nil, confirmed is called once, with nil
// when the message is durable, with the door's [*stomp.ServerError] when it has
// refused this message, or with [ErrUnconfirmed] (wrapped). confirmed is called
// by the goroutine that reads: it must not block.
func (c *Client) Send(ctx context.Context, exchange, routingKey, smpType string, body []byte, confirmed func(error)) error {
	if err := c.takeRoom(ctx); err != nil {
		return err
	}
	f := &stomp.Frame{
		Command: "SEND",
		Headers: []stomp.Header{
			{Name: "destination", Value: "/exchange/" + exchange + "/" + routingKey},
			{Name: "type", Value: smpType},
			{Name: "content-type", Value: contentType},
		},
		Body: body,
	}
	err := c.request(f, func(err error) {
		confirmed(err)
		<-c.room
	})
	if err != nil {
		<-c.room
	}
	return err
}

// request writes a frame that asks for a receipt. If it returns nil, done is
// called once, with the outcome.
func (c *Client) request(f *stomp.Frame, done func(error)) error {
	c.mu.Lock()
	if c.waiting == nil {
		c.mu.Unlock()
		return c.reason()
	}
	c.last++
	n := c.last
	c.waiting[n] = done
	c.mu.Unlock()
	f.Headers = append(f.Headers, stomp.Header{Name: "receipt", Value: strconv.FormatUint(n, 10)})
	err := c.conn.WriteFrame(f)
	if err == nil {
		return nil
	}
	if c.forget(n) == nil {
		return nil // the end of the connection was quicker: done is told
	}
	return err
}

// await is request, and waits for the outcome.
func (c *Client) await(ctx context.Context, f *stomp.Frame) error {
	outcome := make(chan error, 1)
	if err := c.request(f, func(err error) { outcome <- err }); err != nil {
		return err
	}
	select {
	case err := <-outcome:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// forget takes out who waits for a receipt.
func (c *Client) forget(receipt uint64) (done func(error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	done = c.waiting[receipt]
	delete(c.waiting, receipt)
	return done
}

// acknowledge writes ACKs that have gathered, until the connection ends.
func (c *Client) acknowledge() {
	for {
		select {
		case <-c.ackBell:
			c.writeAcks()
		case <-c.done:
			return
		}
	}
}

// writeAcks writes the ACKs that have gathered. An error of writing is one of
// the connection, which Next reports.
func (c *Client) writeAcks() {
	c.acking.Lock()
	defer c.acking.Unlock()
	c.mu.Lock()
	acks := c.acks
	c.acks = nil
	c.mu.Unlock()
	f := stomp.NewFrame("ACK", "id", "")
	for _, ack := range acks {
		f.Headers[0].Value = ack
		if c.conn.WriteFrame(f) != nil {
			return
		}
	}
}

// Disconnect waits until all that was sent and acknowledged is confirmed, also
// what confirmed functions acknowledge, and closes the connection. When ctx
// ends before that, the connection is closed at once. The error says why
// something may be unconfirmed. Messages that come in meanwhile are dropped;
// without [AckAuto] the door gives them to others.
func (c *Client) Disconnect(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { c.close() })()
	c.leave()
	err := c.awaitReceipts(ctx)
	if err == nil {
		c.writeAcks()
		err = c.await(ctx, stomp.NewFrame("DISCONNECT"))
	}
	return errors.Join(err, c.Close())
}

// awaitReceipts waits until all messages are confirmed. None can be sent after
// that.
func (c *Client) awaitReceipts(ctx context.Context) error {
	for range cap(c.room) {
		if err := c.takeRoom(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) takeRoom(ctx context.Context) error {
	select {
	case c.room <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.done:
		return c.reason()
	}
}

// Close closes the connection at once, whatever is not yet written, and returns
// when nobody is told anything any more. It must not be called from a confirmed
// function. Calling it again does nothing.
func (c *Client) Close() error {
	err := c.close()
	c.running.Wait()
	return err
}

// Err says why the connection has ended, and is nil while it has not: the
// door's [*stomp.ServerError], [stomp.ErrClosed] after Close, or an error of
// the network.
func (c *Client) Err() error {
	select {
	case <-c.done:
		return c.reason()
	default:
		return nil
	}
}

func (c *Client) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// read handles what the door says, until the connection ends.
func (c *Client) read() {
	var err error
	for err == nil {
		var f *stomp.Frame
		if f, err = c.conn.ReadFrame(); err == nil {
			err = c.handle(f)
		}
	}
	c.mu.Lock()
	c.err = err
	waiting := c.waiting
	c.waiting = nil // nobody can wait any more
	c.mu.Unlock()
	for _, done := range waiting {
		done(fmt.Errorf("%w: %w", ErrUnconfirmed, err))
	}
	close(c.done)
	c.conn.Close()
}

func (c *Client) handle(f *stomp.Frame) error {
	switch f.Command {
	case "RECEIPT":
		c.tell(f, nil)
		return nil
	case "MESSAGE":
		return c.deliver(f)
	case "ERROR":
		err := errorFrom(f)
		c.tell(f, err)
		return err
	default:
		return &stomp.ProtocolError{Reason: fmt.Sprintf("unexpected command %.40s from the local door", f.Command)}
	}
}

// tell calls the function that waits for the receipt that a frame names.
func (c *Client) tell(f *stomp.Frame, outcome error) {
	id, _ := f.Get("receipt-id")
	n, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		return
	}
	if done := c.forget(n); done != nil {
		done(outcome)
	}
}

// deliver hands a message to its subscription.
func (c *Client) deliver(f *stomp.Frame) error {
	id, _ := f.Get("subscription")
	c.mu.Lock()
	sub := c.subscriptions[id]
	c.mu.Unlock()
	if sub == nil {
		return &stomp.ProtocolError{Reason: "MESSAGE for a subscription that was never made"}
	}
	select {
	case sub.messages <- messageFrom(f):
		return nil
	case <-c.leaving:
		return nil
	}
}

// errorFrom is what a frame that is no answer to hope for says.
func errorFrom(f *stomp.Frame) error {
	if f.Command != "ERROR" {
		return &stomp.ProtocolError{Reason: fmt.Sprintf("unexpected command %.40s from the local door", f.Command)}
	}
	e := &stomp.ServerError{Body: f.Body}
	e.Message, _ = f.Get("message")
	e.ReceiptID, _ = f.Get("receipt-id")
	e.ContentType, _ = f.Get("content-type")
	return e
}
