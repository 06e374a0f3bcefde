package embedded

import "slices"

// writeMaintenance writes only the operations of the kind maintenance among ops. If that fails
// because of missing space, or with a write error without a known reason, it removes the reserve
// and tries again, in small transactions. It returns the operations that are not written, and
// whether operations of the kind maintenance are among them (failed).
func (w *writer) writeMaintenance(ops []op) (left []op, failed bool) {
	var maintenanceOps []op
	for _, o := range ops {
		if k, _ := o.cost(); k == maintenance {
			maintenanceOps = append(maintenanceOps, o)
		} else {
			left = append(left, o)
		}
	}
	if len(maintenanceOps) == 0 {
		return left, false
	}
	err := w.findReason(w.write(maintenanceOps), 0)
	if err == nil {
		if w.reserve.missing {
			w.restartWAL() // so that the next transaction reuses the space of this one
		}
		return left, false
	}
	if isDiskFault(err) || !isFull(err) && !isWriteError(err) {
		return ops, true // the reason is not missing space
	}
	w.reserve.remove()
	w.restartWAL()
	for n, o := range maintenanceOps {
		if w.writeInSteps(o) != nil {
			return slices.Concat(maintenanceOps[n:], left), true
		}
	}
	return left, false
}

// maxStep is how many messages one transaction of a splitter removes while space is missing.
// Such a transaction needs a few MiB at most.
const maxStep = 500

// splitter is an operation that can be done in parts, each in a transaction of its own.
type splitter interface {
	// split returns operations for all parts of this one but the last, each of about size
	// messages. The operation itself, applied after them, does the last part.
	split(t *tx, size uint64) ([]op, error)
}

// writeInSteps commits one operation: a splitter in transactions that need little space, each
// of which reuses the space of the previous one, any other in a single transaction.
func (w *writer) writeInSteps(o op) error {
	if s, ok := o.(splitter); ok {
		var parts []op
		split := &callOp{do: func(t *tx) (err error) {
			parts, err = s.split(t, maxStep)
			return err
		}}
		// The first transaction only calls split; the following ones apply the parts.
		for list := []op{split}; len(list) > 0; list, parts = append(list[1:], parts...), nil {
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
