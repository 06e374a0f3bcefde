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

	"peerlink/internal/excerpt"
	"peerlink/internal/socket"
	"peerlink/internal/wait"
	"peerlink/stomp"
)

// clientWindow is how many messages of a [Client] may wait for their receipts.
const clientWindow = 4096

// Client is a connection to the door, for commands and tests of this program. All
// methods are safe for concurrent use. A Client must be closed, by Disconnect or Close.
//
// One goroutine reads the frames of the door. If the user of a subscription with
// [AckAuto] does not call Next, that goroutine blocks once too many messages wait for
// Next, and does not read receipts either.
type Client struct {
	conn *stomp.Conn

	slots           chan struct{} // has an element for each message without a receipt
	stopDelivery    func()        // closes deliveryStopped
	deliveryStopped chan struct{} // closed when messages are not delivered any more
	close           func() error
	done            chan struct{} // closed when the connection has ended, and all callbacks were called

	mu            sync.Mutex
	lastReceipt   uint64                         // number of the receipt requested last
	callbacks     map[uint64]func(error)         // by receipt number: called once, with the outcome; nil after the connection has ended
	subscriptions map[string]*ClientSubscription // by id
	queuedAcks    []string                       // ack headers of messages, for ACKs to be written
	err           error                          // why the connection has ended

	ackSignal wait.Signal
	ackMu     sync.Mutex     // keeps ACKs in order
	running   sync.WaitGroup // all goroutines of the Client
}

// errUnconfirmed is the outcome of operations that the door had not confirmed when the
// connection ended: they may or may not have been done.
var errUnconfirmed = errors.New("local: not confirmed before the connection ended")

// Dial connects to the door of the node with this state folder: by the Unix socket or,
// if there is none, by TCP. It returns an error if no door is open.
//
// The passcode is sent only to a process of the node's user: after a crash, any user
// may listen on the TCP port of the door.
func Dial(ctx context.Context, stateDir string) (*Client, error) { return DialNode(ctx, stateDir, "") }

// DialNode is like [Dial], but returns [ErrOwner] if the door was opened with another
// [Config.Owner] than owner. If one of the two owners is empty, they are not compared.
func DialNode(ctx context.Context, stateDir, owner string) (*Client, error) {
	a, err := readAddresses(stateDir)
	if err != nil {
		return nil, err
	}
	if owner != "" && a.Owner != "" && a.Owner != owner {
		return nil, fmt.Errorf("%w: %s is that of %s, and this node is %s", ErrOwner, stateDir, excerpt.Of(a.Owner), owner)
	}
	path := filepath.Join(stateDir, passcodeFile)
	secret, err := readPasscode(path)
	if errors.Is(err, fs.ErrNotExist) { // a generated passcode is made invalid when a door with a TCP port is closed
		return nil, fmt.Errorf("%w: %w; start \"peerlink serve\" again", errNotOpen, err)
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
		return nil, fmt.Errorf("the passcode is not sent to the process that listens: %w", err)
	}
	return newClient(ctx, nc, secret)
}

// dial connects to the door. The door's Unix socket is in the state folder, where no
// other user can listen. On the door's TCP port, any user can listen while the door is
// not open. Therefore dial connects by TCP only if the state folder is locked, which only
// the process that has opened the door can have done.
func (a addresses) dial(ctx context.Context, stateDir string) (net.Conn, error) {
	network, address := "unix", a.Unix
	if a.Unix == "" {
		network, address = "tcp", a.TCP
		switch open, err := isOpen(stateDir); {
		case err != nil:
			return nil, err
		case !open:
			return nil, fmt.Errorf("%w: the service has ended without closing it; start \"peerlink serve\" again", errNotOpen)
		}
	}
	var dialer net.Dialer
	nc, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("%w: can not connect to it; start \"peerlink serve\" again: %w", errNotOpen, err)
	}
	return nc, nil
}

// newClient opens a session on nc, which the Client then owns.
func newClient(ctx context.Context, nc net.Conn, secret string) (*Client, error) {
	c := &Client{
		conn:            stomp.NewConn(nc, frameLimits()),
		slots:           make(chan struct{}, clientWindow),
		deliveryStopped: make(chan struct{}),
		done:            make(chan struct{}),
		callbacks:       make(map[uint64]func(error)),
		subscriptions:   make(map[string]*ClientSubscription),
		ackSignal:       wait.NewSignal(),
	}
	c.stopDelivery = sync.OnceFunc(func() { close(c.deliveryStopped) })
	c.close = sync.OnceValue(func() error {
		c.stopDelivery()
		return c.conn.Close()
	})
	if err := c.connect(ctx, secret); err != nil {
		c.close()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: it has closed the connection without an answer; try again, or start \"peerlink serve\" again: %w", errNotOpen, err)
		}
		return nil, fmt.Errorf("connect to the local door: %w", err)
	}
	c.running.Go(c.read)
	c.running.Go(c.writeAcksLoop)
	return c, nil
}

// connect performs the opening handshake.
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

// Send sends a message to an outgoing exchange. It blocks while too many messages are
// unconfirmed. If it returns nil, confirmed is called once: with nil when the message
// is durable, with the door's [*stomp.ServerError] if it has refused this message, or
// with another error if the connection has ended before the door has confirmed the
// message. That error wraps the reason, which can be a ServerError about another message.
// The reading goroutine calls confirmed, which must not block.
func (c *Client) Send(ctx context.Context, exchange, routingKey, smpType string, body []byte, confirmed func(error)) error {
	if err := c.acquireSlot(ctx); err != nil {
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
		<-c.slots
	})
	if err != nil {
		<-c.slots
	}
	return err
}

// request writes a frame with a receipt header. If it returns nil, done is called once,
// with the outcome.
func (c *Client) request(f *stomp.Frame, done func(error)) error {
	c.mu.Lock()
	if c.callbacks == nil {
		c.mu.Unlock()
		return c.endErr()
	}
	c.lastReceipt++
	n := c.lastReceipt
	c.callbacks[n] = done
	c.mu.Unlock()
	f.Headers = append(f.Headers, stomp.Header{Name: "receipt", Value: strconv.FormatUint(n, 10)})
	err := c.conn.WriteFrame(f)
	if err == nil {
		return nil
	}
	if c.takeCallback(n) == nil {
		return nil // the end of the connection came first: done is called
	}
	return err
}

// await is like request, but waits for the outcome and returns it, or the cause of the end of
// ctx. It returns nil when done is closed; done may be nil.
func (c *Client) await(ctx context.Context, done <-chan struct{}, f *stomp.Frame) error {
	outcome := make(chan error, 1)
	if err := c.request(f, func(err error) { outcome <- err }); err != nil {
		return err
	}
	select {
	case err := <-outcome:
		return err
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// takeCallback removes and returns the function to be called for a receipt, or nil if there
// is none.
func (c *Client) takeCallback(receipt uint64) (done func(error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	done = c.callbacks[receipt]
	delete(c.callbacks, receipt)
	return done
}

// writeAcksLoop writes queued ACKs until the connection ends.
func (c *Client) writeAcksLoop() {
	for {
		select {
		case <-c.ackSignal:
			c.writeAcks()
		case <-c.done:
			return
		}
	}
}

// writeAcks writes the queued ACKs. If that fails, the connection has failed, which
// Next reports.
func (c *Client) writeAcks() {
	c.ackMu.Lock()
	defer c.ackMu.Unlock()
	c.mu.Lock()
	acks := c.queuedAcks
	c.queuedAcks = nil
	c.mu.Unlock()
	f := stomp.NewFrame("ACK", "id", "")
	for _, ack := range acks {
		f.Headers[0].Value = ack
		if c.conn.WriteFrame(f) != nil {
			return
		}
	}
}

// Disconnect waits until everything that was sent and acknowledged is confirmed,
// including the acknowledgements by confirmed functions, and closes the connection. If
// ctx ends before that, the connection is closed at once. If it is not certain that everything
// was confirmed, Disconnect returns the reason. Messages received meanwhile are dropped;
// without [AckAuto] the door redelivers them to other subscriptions.
func (c *Client) Disconnect(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { c.close() })()
	c.stopDelivery()
	err := c.awaitReceipts(ctx)
	if err == nil {
		c.writeAcks()
		err = c.await(ctx, nil, stomp.NewFrame("DISCONNECT"))
	}
	return errors.Join(err, c.Close())
}

// awaitReceipts waits until all messages are confirmed: it acquires all slots and keeps
// them, so that no more messages can be sent.
func (c *Client) awaitReceipts(ctx context.Context) error {
	for range cap(c.slots) {
		if err := c.acquireSlot(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) acquireSlot(ctx context.Context) error {
	select {
	case c.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.done:
		return c.endErr()
	}
}

// Close closes the connection at once, without writing queued frames, and returns when
// all confirmed functions have returned. A confirmed function must not call it. Further
// calls do nothing.
func (c *Client) Close() error {
	err := c.close()
	c.running.Wait()
	return err
}

// Err returns why the connection has ended, or nil while it has not: the door's
// [*stomp.ServerError], a [*stomp.ProtocolError] if a frame was not expected, or an error of
// [stomp.Conn.ReadFrame], such as [stomp.ErrClosed] after Close.
func (c *Client) Err() error {
	select {
	case <-c.done:
		return c.endErr()
	default:
		return nil
	}
}

func (c *Client) endErr() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// read handles the frames of the door until the connection ends.
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
	waiting := c.callbacks
	c.callbacks = nil // no further request is accepted
	c.mu.Unlock()
	for _, done := range waiting {
		done(fmt.Errorf("%w: %w", errUnconfirmed, err))
	}
	close(c.done)
	c.conn.Close()
}

func (c *Client) handle(f *stomp.Frame) error {
	switch f.Command {
	case "RECEIPT":
		c.complete(f, nil)
		return nil
	case "MESSAGE":
		return c.deliver(f)
	case "ERROR":
		err := errorFrom(f)
		c.complete(f, err)
		return err
	default:
		return &stomp.ProtocolError{Reason: fmt.Sprintf("unexpected command %.40s from the local door", f.Command)}
	}
}

// complete calls the function for the receipt ID of a RECEIPT or an ERROR, if there is one.
func (c *Client) complete(f *stomp.Frame, outcome error) {
	id, _ := f.Get("receipt-id")
	n, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		return
	}
	if done := c.takeCallback(n); done != nil {
		done(outcome)
	}
}

// deliver passes a message to its subscription, and blocks while the subscription has too many.
// Once delivery is stopped, deliver drops the message.
func (c *Client) deliver(f *stomp.Frame) error {
	id, _ := f.Get("subscription")
	c.mu.Lock()
	sub := c.subscriptions[id]
	c.mu.Unlock()
	if sub == nil {
		return &stomp.ProtocolError{Reason: "MESSAGE for a subscription that does not exist"}
	}
	sub.begin()
	select {
	case sub.messages <- messageFrom(f):
		return nil
	case <-c.deliveryStopped:
		return nil
	}
}

// errorFrom returns the error of a frame that is not the expected answer.
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
