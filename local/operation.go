package local

import (
	"errors"
	"fmt"
	"syscall"

	"peerlink/broker"
	"peerlink/broker/embedded"
	"peerlink/stomp"
)

// operation is what one frame asks for. It ends with one call of done.
type operation struct {
	session     *session
	receipt     *string // that the client wants, if any
	destination string  // of a SEND
}

// done ends the operation, with nil when what it has changed is durable. It
// does not wait, since the store's writer calls it.
func (o *operation) done(err error) {
	s := o.session
	switch {
	case err != nil:
		s.finish(ending{err: err, failure: o.failure(err)})
		s.answered(1)
	case o.receipt != nil:
		s.answer(*o.receipt)
	default:
		s.answered(1)
	}
}

// failure is the answer to the client when the operation has failed.
func (o *operation) failure(err error) *stomp.ServerError {
	e := explain(err)
	if errors.Is(err, broker.ErrUnroutable) {
		e = serverError(fmt.Sprintf("SEND to %.200s: no active peer's range takes this routing key", o.destination))
	}
	if o.receipt != nil {
		e.ReceiptID = *o.receipt
	}
	return e
}

// explain returns what a client learns about an error.
func explain(err error) *stomp.ServerError {
	var violation *stomp.ProtocolError
	switch {
	case errors.As(err, &violation):
		return serverError(violation.Reason)
	case errors.Is(err, embedded.ErrFull):
		return serverError("the disk is full" + systemReason(err) + ": the message was not stored, send it again later")
	case errors.Is(err, embedded.ErrUnwritable):
		return serverError("the message store can not be written" + systemReason(err) + ": the message was not stored, send it again later")
	case errors.Is(err, broker.ErrClosed):
		return serverError("the message store is closed: nothing was done")
	default:
		return serverError(err.Error())
	}
}

// systemReason returns what the operating system says in an error, in brackets; "" if
// it says nothing.
func systemReason(err error) string {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return fmt.Sprintf(" (%v)", errno)
	}
	return ""
}

// serverError makes an ERROR. The text is also its body, since that is what
// many client libraries show.
func serverError(text string) *stomp.ServerError {
	return &stomp.ServerError{Message: text, ContentType: "text/plain", Body: []byte(text + "\n")}
}
