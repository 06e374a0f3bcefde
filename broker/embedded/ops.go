package embedded

import (
	"errors"

	"peerlink/broker"
)

// isVerdict tells whether an error is the answer to one operation, as opposed
// to a failure of the transaction.
func isVerdict(err error) bool {
	return errors.Is(err, ErrNoQueue) || errors.Is(err, ErrNotGivenOut) || errors.Is(err, broker.ErrUnroutable)
}

// ownOp is an operation of one caller, who is told how it ended.
type ownOp struct {
	do      func(*tx) error
	kind    kind
	part    weight      // of the budget
	done    func(error) // may be nil
	verdict error
}

func (o *ownOp) apply(t *tx) error {
	o.verdict = nil
	err := o.do(t)
	if isVerdict(err) {
		o.verdict = err
		return nil
	}
	return err
}

func (o *ownOp) needs() (kind, weight) { return o.kind, o.part }

func (o *ownOp) settle(err error) {
	if err == nil {
		err = o.verdict
	}
	if o.done != nil {
		o.done(err)
	}
}
