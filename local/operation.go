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
	command string  // of the frame
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
	e := explain(err, o.notDone())
	if o.receipt != nil {
		e.ReceiptID = *o.receipt
	}
	return e
}

// notDone says what has not been done if the message store could not be written.
func (o *operation) notDone() string {
	switch o.command {
	case "SEND":
		return "the message was not stored, send it again later"
	case "COMMIT":
		return "nothing of the transaction was done, send all of it again later"
	case "ACK", "NACK":
		return notRemoved
	}
	return "nothing was done"
}

// notRemoved says that messages of the inbox could not be removed.
const notRemoved = "what was acknowledged was not removed, and may be delivered again"

// explain returns the ERROR that describes err to a client. notDone is what it says if the message
// store could not be written.
func explain(err error, notDone string) *stomp.ServerError {
	var violation *stomp.ProtocolError
	switch {
	case errors.As(err, &violation):
		e := serverError(violation.Reason)
		e.ReceiptID = violation.ReceiptID
		return e
	case errors.Is(err, embedded.ErrFull):
		return serverError("the disk is full" + systemReason(err) + ": " + notDone)
	case errors.Is(err, embedded.ErrUnwritable):
		return serverError("the message store can not be written" + systemReason(err) + ": " + notDone)
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
