package stomp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// ServerConfig holds the parameters of a [Server].
type ServerConfig struct {
	Destination    string        // the only destination allowed in messages
	HeartBeat      HeartBeat     // what to offer and to request
	ConnectTimeout time.Duration // limit of the opening handshake; 0: DefaultConnectTimeout
	Limits         Limits        // of received frames, receipts and errors; zero fields: DefaultLimits

	// OnConnect, unless nil, is called with the client's first frame, CONNECT or STOMP, before
	// CONNECTED is sent.
	OnConnect func(connect *Frame)
}

// Received is a message that a [Server] has received.
type Received struct {
	// ID is the receipt header, which the client expects in the receipt. It may be any
	// string, and clients may use the same one again. It shares no memory with the
	// other fields, so it may be kept.
	ID string
	Message
}

// Server is the receiving side of a session. Only one goroutine at a time may call
// Next; all other methods are safe for concurrent use. A Server must be closed, by
// Finish, Fail or Close.
type Server struct {
	conn        *Conn
	destination string

	// Set before Next returns io.EOF.
	noMoreMessages    bool    // the client has sent DISCONNECT, or closed its side
	disconnectReceipt *string // receipt header of DISCONNECT; nil if none
}

// NewServer opens a session on nc, which the Server then owns. The end of ctx
// interrupts the opening handshake, and has no effect later. On an error nc is closed,
// after an ERROR if the client has caused it. The error is [ErrConnectTimeout], a
// [*ProtocolError], the cause of the end of ctx, or an error of the network.
func NewServer(ctx context.Context, nc net.Conn, cfg ServerConfig) (*Server, error) {
	ctx, cancel := withConnectTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	s := &Server{conn: NewConn(nc, cfg.Limits), destination: cfg.Destination}
	accept := Acceptance{HeartBeat: cfg.HeartBeat}
	if cfg.OnConnect != nil {
		accept.Check = func(connect *Frame) error {
			cfg.OnConnect(connect)
			return nil
		}
	}
	if err := s.conn.Accept(ctx, accept); err != nil {
		return nil, err
	}
	return s, nil
}

// Next returns the next message. The error is [io.EOF] if there will be no more
// messages, because the client has sent DISCONNECT or closed its side, and [ErrStopped]
// after StopReading. After these two errors, confirm what can be confirmed, and call
// Finish. The error is a [*ProtocolError], [ErrSilent] or [ErrSlow] if the client is at
// fault: then Next has sent an ERROR and closed the connection, which takes at most twice
// [CloseTimeout]. Otherwise the error is one of [Conn.ReadFrame].
func (s *Server) Next() (Received, error) {
	if s.noMoreMessages {
		return Received{}, io.EOF
	}
	f, err := s.conn.ReadFrame()
	switch {
	case errors.Is(err, io.EOF):
		s.noMoreMessages = true
		return Received{}, io.EOF
	case err != nil:
		return Received{}, s.conn.failIfClientError(err)
	}
	switch f.Command {
	case "SEND":
		return s.message(f)
	case "DISCONNECT":
		if receipt, ok := f.Get("receipt"); ok {
			receipt = strings.Clone(receipt)
			s.disconnectReceipt = &receipt
		}
		s.noMoreMessages = true
		go s.watchAfterDisconnect()
		return Received{}, io.EOF
	case "STOMP", "CONNECT":
		err = protocolErrorf("second %s on one connection", f.Command)
	default:
		err = protocolErrorf("command %.40s is not supported here", f.Command)
	}
	return Received{}, s.conn.failIfClientError(err)
}

// message returns the message of a SEND frame.
func (s *Server) message(f *Frame) (Received, error) {
	destination, hasDestination := f.Get("destination")
	id, hasID := f.Get("receipt")
	typ, hasType := f.Get("type")
	contentType, ok := f.Get("content-type")
	if !ok {
		contentType = defaultContentType
	}
	var reason string
	switch {
	case !hasID:
		reason = "SEND has no receipt header"
	case !hasType:
		reason = "SEND has no type header"
	case !hasDestination:
		reason = "SEND has no destination header"
	case destination != s.destination:
		reason = fmt.Sprintf("destination of SEND is not %q", s.destination)
	default:
		return Received{strings.Clone(id), Message{typ, contentType, f.Body}}, nil
	}
	s.Fail(&ServerError{Message: reason, ReceiptID: id, Type: typ, ContentType: contentType, Body: f.Body})
	return Received{}, &ProtocolError{Reason: reason}
}

// watchAfterDisconnect reads another frame after DISCONNECT, because a client that
// continues to send must get an ERROR. It returns at the latest when the connection is
// closed.
func (s *Server) watchAfterDisconnect() {
	f, err := s.conn.ReadFrame()
	if err == nil {
		err = protocolErrorf("%.40s after DISCONNECT", f.Command)
	}
	if !errors.Is(err, ErrSilent) { // a client may be silent after DISCONNECT
		s.conn.failIfClientError(err)
	}
}

// Confirm sends the receipt for the message with this ID, which also confirms all
// messages before it. The error is one of [Conn.WriteFrame].
func (s *Server) Confirm(id string) error {
	return s.conn.WriteFrame(NewFrame("RECEIPT", "receipt-id", id))
}

// StopReading makes Next return [ErrStopped] after the messages that have been received
// already, so that a server that is about to end can confirm them, and then call
// Finish. It may be called at any time.
func (s *Server) StopReading() { s.conn.StopReading() }

// Broken returns a channel that is closed when nothing can be written to the client any
// more, because a write has failed or timed out, or the Server is closed. It is for
// servers that may wait long before they call Next again.
func (s *Server) Broken() <-chan struct{} { return s.conn.writerDone }

// Finish ends the session in good order, after Next has returned [io.EOF] or
// [ErrStopped]: it writes the queued receipts, then the one for DISCONNECT if the
// client has requested it, which confirms everything received, and closes the
// connection. If not everything was written, Finish returns the reason.
func (s *Server) Finish() error {
	if s.disconnectReceipt == nil {
		return s.conn.CloseAfterFlush(CloseTimeout)
	}
	return s.conn.sendLast(NewFrame("RECEIPT", "receipt-id", *s.disconnectReceipt))
}

// Disconnected reports, after Next has returned [io.EOF], whether the client has sent DISCONNECT
// with a receipt header. Otherwise it may have ended unexpectedly.
func (s *Server) Disconnected() bool { return s.disconnectReceipt != nil }

// Fail sends the client an ERROR and closes the connection; see [Conn.Fail]. It
// confirms nothing.
func (s *Server) Fail(e *ServerError) error { return s.conn.Fail(e) }

// Close closes the connection at once; see [Conn.Close].
func (s *Server) Close() error { return s.conn.Close() }
