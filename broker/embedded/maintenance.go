package embedded

import "slices"

// writeMaintenance writes the maintenance operations, and removes the reserve if that may help.
// It returns the other operations, or, if even maintenance fails, all that are not
// written.
func (w *writer) writeMaintenance(ops []op) (left []op, failed bool) {
	var alone []op
	for _, o := range ops {
		if k, _ := o.cost(); k == maintenance {
			alone = append(alone, o)
		} else {
			left = append(left, o)
		}
	}
	if len(alone) == 0 {
		return left, false
	}
	err := w.withReason(w.write(alone), 0)
	if err == nil {
		if w.reserve.missing {
			w.restartWAL() // so that the next transaction reuses the space of this one
		}
		return left, false
	}
	if isDiskFault(err) || !isFull(err) && !isWriteError(err) {
		return ops, true // the reason is not missing space
	}
	w.reserve.giveUp()
	w.restartWAL()
	for n, o := range alone {
		if w.writeInSteps(o) != nil {
			return slices.Concat(alone[n:], left), true
		}
	}
	return left, false
}

// maxStep is how many messages one transaction removes while space is missing. Such a
// transaction needs a few MiB at most.
const maxStep = 500

// steps is implemented by operations that can be done in parts, each in a transaction of
// its own.
type steps interface {
	// split returns operations for parts of this one, each of up to most messages. The
	// last part is left to this operation.
	split(t *tx, most uint64) ([]op, error)
}

// writeInSteps commits one operation in transactions that need little space, each of which
// reuses the space of the previous one.
func (w *writer) writeInSteps(o op) error {
	if s, ok := o.(steps); ok {
		var parts []op
		look := &callOp{do: func(t *tx) (err error) {
			parts, err = s.split(t, maxStep)
			return err
		}}
		for list := []op{look}; len(list) > 0; list, parts = append(list[1:], parts...), nil {
			t, err := w.attempt(list[:1])
			if err != nil {
				return err
			}
			w.quotas.update(t.usage)
			w.restartWAL()
		}
	}
	err := w.write([]op{o})
	w.restartWAL()
	return err
}
