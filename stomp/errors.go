package stomp

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

var (
	// ErrClosed means that this side has closed the connection.
	ErrClosed = errors.New("stomp: connection closed")
	// ErrStopped means that [Conn.StopReading] was called.
	ErrStopped = errors.New("stomp: reading stopped")
	// ErrSilent means that the peer sent nothing, not even a heart-beat, for
	// longer than agreed, [HeartBeat].Grace included.
	ErrSilent = errors.New("stomp: peer is silent")
	// ErrSlow means that the peer began a frame and took too long to finish it.
	ErrSlow = errors.New("stomp: peer is too slow")
	// ErrStalled means that data could not be written in time, because the peer did not
	// read, or read too slowly.
	ErrStalled = errors.New("stomp: peer does not read")
	// ErrConnectTimeout means that the opening handshake was not complete in time.
	ErrConnectTimeout = errors.New("stomp: no session within the time limit")
	// ErrUnsendable means that a frame violates the rules of STOMP or exceeds the
	// limits. Nothing of it was written, and the connection can still be used.
	ErrUnsendable = errors.New("stomp: frame can not be sent")
)

// ProtocolError describes how the peer has violated STOMP. Reason may be sent to the
// peer and logged: it is short, and quotes no header that could be a secret.
type ProtocolError struct {
	Reason string
	// ReceiptID is the receipt header of the frame that violates STOMP, if that was received.
	ReceiptID string
}

func (e *ProtocolError) Error() string { return "stomp: protocol error: " + e.Reason }

func protocolErrorf(format string, args ...any) error {
	return &ProtocolError{Reason: fmt.Sprintf(format, args...)}
}

func unsendablef(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnsendable, fmt.Sprintf(format, args...))
}

// ServerError is an ERROR frame, the last frame of a server before it closes the
// connection. Only Message is always set.
type ServerError struct {
	Message string // short description
	// MessageNumber is, on the client's side, the number of the message that has caused the error,
	// as returned by [Client.Send]. It is 0 if the server has named no message, or none
	// that is unconfirmed.
	MessageNumber uint64
	// The message that has caused the error, as the server has received it, if there is one.
	// ReceiptID is its receipt header. A server may send an explanation as the Body instead.
	ReceiptID   string
	Type        string
	ContentType string
	Body        []byte
}

func (e *ServerError) Error() string {
	if e.ReceiptID == "" {
		return fmt.Sprintf("stomp: server error %q", e.Message)
	}
	return fmt.Sprintf("stomp: server error %q about message %q", e.Message, e.ReceiptID)
}

// frame returns the ERROR frame. It must be sendable with any content, so what does not
// fit into the limits is shortened or left out.
func (e *ServerError) frame(l encoder) *Frame {
	message := e.Message
	if l.raw {
		message = strings.NewReplacer("\r", " ", "\n", " ").Replace(message)
	}
	f := NewFrame("ERROR", "message", clip(message, l.HeaderValue))
	for _, h := range []Header{
		{"receipt-id", e.ReceiptID},
		{"type", e.Type},
		{"content-type", e.ContentType},
	} {
		if h.Value != "" && h.Value == clip(h.Value, l.HeaderValue) {
			f.Headers = append(f.Headers, h)
		}
	}
	if len(e.Body) <= l.Body {
		f.Body = e.Body
	}
	return f
}

// serverErrorFrom returns the content of an ERROR frame.
func serverErrorFrom(f *Frame) *ServerError {
	get := func(name string) string {
		value, _ := f.Get(name)
		return strings.Clone(value) // the error may be kept for long
	}
	return &ServerError{
		Message:     get("message"),
		ReceiptID:   get("receipt-id"),
		Type:        get("type"),
		ContentType: get("content-type"),
		Body:        f.Body,
	}
}

func silentError(d time.Duration) error {
	return fmt.Errorf("%w: nothing received for %v", ErrSilent, d)
}

func slowError(d time.Duration) error {
	return fmt.Errorf("%w: a frame was not complete after %v", ErrSlow, d)
}

func stalledError(d time.Duration) error {
	return fmt.Errorf("%w: a write did not finish in %v", ErrStalled, d)
}
