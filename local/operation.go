package local

import (
	"errors"
	"fmt"
	"syscall"

	"peerlink/broker"
	"peerlink/broker/embedded"
	"peerlink/stomp"
)

// operation is the request of one frame. It ends with one call of done.
type operation struct {
	session *session
	receipt *string // the receipt ID, if the client has requested a receipt; otherwise nil
}

// done ends the operation. If err is nil, the operation has succeeded: a message that was sent
// or removed is durable; a message of NACK is returned to the inbox later. done does not block,
// because the store's writer calls it.
func (o *operation) done(err error) {
	s := o.session
	switch {
	case err != nil:
		s.beginEnd(endReason{err: err, errorToClient: o.errorToClient(err)})
		s.completed(1)
	case o.receipt != nil:
		s.queueReceipt(*o.receipt)
	default:
		s.completed(1)
	}
}

// errorToClient returns the ERROR for the client when the operation has failed.
func (o *operation) errorToClient(err error) *stomp.ServerError {
	e := explain(err)
	if o.receipt != nil {
		e.ReceiptID = *o.receipt
	}
	return e
}

// explain returns the ERROR that describes err to a client.
func explain(err error) *stomp.ServerError {
	var violation *stomp.ProtocolError
	switch {
	case errors.As(err, &violation):
		e := serverError(violation.Reason)
		e.ReceiptID = violation.ReceiptID
		return e
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

// systemReason returns the error of the operating system in err, in brackets, or "" if
// there is none.
func systemReason(err error) string {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return fmt.Sprintf(" (%v)", errno)
	}
	return ""
}

// serverError returns an ERROR. The text is also its body, because many client
// libraries show only that.
func serverError(text string) *stomp.ServerError {
	return &stomp.ServerError{Message: text, ContentType: "text/plain", Body: []byte(text + "\n")}
}
