package stomp

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

var (
	// ErrClosed is the reason of everything that fails because this side has
	// closed the connection.
	ErrClosed = errors.New("stomp: connection closed")
	// ErrStopped means that this side has stopped reading, on purpose.
	ErrStopped = errors.New("stomp: reading stopped")
	// ErrSilent means that the peer sent nothing, not even a heart-beat, for
	// longer than agreed.
	ErrSilent = errors.New("stomp: peer is silent")
	// ErrSlow means that the peer began a frame and took too long to finish it.
	ErrSlow = errors.New("stomp: peer is too slow")
	// ErrStalled means that the peer did not take what was written to it.
	ErrStalled = errors.New("stomp: peer does not read")
	// ErrConnectTimeout means that the peer did not open the session in time.
	ErrConnectTimeout = errors.New("stomp: no session within the time limit")
	// ErrUnsendable means that a frame breaks the rules of STOMP or exceeds the
	// limits. Nothing of it was written, and the connection is as good as
	// before.
	ErrUnsendable = errors.New("stomp: frame can not be sent")
)

// ProtocolError says how the peer has violated STOMP. Reason is fit to be told
// to the peer and to be logged: it is short, and quotes no header that could be
// a secret.
type ProtocolError struct{ Reason string }

func (e *ProtocolError) Error() string { return "stomp: protocol error: " + e.Reason }

func protocolErrorf(format string, args ...any) error {
	return &ProtocolError{Reason: fmt.Sprintf(format, args...)}
}

func unsendablef(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnsendable, fmt.Sprintf(format, args...))
}

// ServerError is an ERROR frame: the server's last word before it closes the
// connection. Only Message is always there.
type ServerError struct {
	Message string // short description
	// N is, on the client's side, the number of the message to blame, as
	// [Client.Send] has returned it. It is 0 when the server blamed no message,
	// or none that waits for a receipt.
	N uint64
	// The message to blame, as the server has seen it. ReceiptID is the
	// identifier that the client has given it.
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

// frame makes the ERROR frame. It has to reach the peer whatever the error is
// about, so what does not fit into the default limits is shortened or left out.
func (e *ServerError) frame() *Frame {
	l := DefaultLimits()
	f := NewFrame("ERROR", "message", clip(e.Message, l.HeaderValue))
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

// serverErrorFrom reads an ERROR frame.
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
