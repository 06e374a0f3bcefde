package embedded

import (
	"errors"

	"peerlink/broker"
)

// isOpError reports whether an error is the result of a single operation, as opposed to a
// failure of the transaction.
func isOpError(err error) bool {
	return errors.Is(err, broker.ErrNoQueue) || errors.Is(err, errNotDelivered) || errors.Is(err, broker.ErrUnroutable) || errors.Is(err, errWithdrawn)
}

// callOp is an operation of one caller, which receives the result.
type callOp struct {
	do     func(*tx) error
	kind   kind
	part   quantity    // of the budget
	done   func(error) // may be nil
	result error
}

func (o *callOp) apply(t *tx) error {
	o.result = nil
	err := o.do(t)
	if isOpError(err) {
		o.result = err
		return nil
	}
	return err
}

func (o *callOp) cost() (kind, quantity) { return o.kind, o.part }

func (o *callOp) finish(err error) {
	if err == nil {
		err = o.result
	}
	if o.done != nil {
		o.done(err)
	}
}
