package embedded

import "slices"

// writeMaintenance writes only the operations of the kind maintenance among ops. If that fails
// because of missing space, or with a write error without a known reason, it tries again in small
// transactions, each of which overwrites the previous one in the write-ahead log; and if that fails too,
// once more after it has removed the reserve. It returns the operations that are not written, and
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
			w.db.restartWAL() // so that the next transaction reuses the space of this one
		}
		return left, false
	}
	if isDiskFault(err) || !isFull(err) && !isWriteError(err) {
		return ops, true // the reason is not missing space
	}
	w.db.restartWAL()
	maintenanceOps = w.writeOneByOne(maintenanceOps)
	if len(maintenanceOps) > 0 {
		w.reserve.remove()
		w.db.restartWAL()
		_ = w.db.growWAL()
		maintenanceOps = w.writeOneByOne(maintenanceOps)
	}
	return slices.Concat(maintenanceOps, left), len(maintenanceOps) > 0
}

// writeOneByOne writes operations in order, each with writeInSteps, and returns those that are left
// after the first error.
func (w *writer) writeOneByOne(ops []op) (left []op) {
	for n, o := range ops {
		if w.writeInSteps(o) != nil {
			return ops[n:]
		}
	}
	return nil
}

// maxStep is how many messages one transaction of a splitter removes while space is missing, at first.
// Such a transaction needs a few MiB at most. If there is less space, there are fewer messages in one
// transaction, down to minStep.
const maxStep, minStep = 500, 5

// splitter is an operation that can be done in parts, each in a transaction of its own.
type splitter interface {
	// split returns operations for all parts of this one but the last, each of about size
	// messages. The operation itself, applied after them, does the last part.
	split(t *tx, size uint64) ([]op, error)
}

// writeInSteps commits one operation: a splitter in transactions that need little space, each
// of which reuses the space of the previous one, any other in a single transaction.
func (w *writer) writeInSteps(o op) (err error) {
	s, ok := o.(splitter)
	if !ok {
		return w.writeLast(o)
	}
	for size := uint64(maxStep); size >= minStep; size /= 10 {
		if err = w.writeParts(s, size); err == nil {
			err = w.writeLast(o)
		}
		if !isFull(err) && !isWriteError(err) {
			break
		}
		w.db.restartWAL()
	}
	return err
}

// writeLast commits one operation, and lets the next transaction reuse its space.
func (w *writer) writeLast(o op) error {
	err := w.write([]op{o})
	w.db.restartWAL()
	return err
}

// writeParts commits all parts of an operation, each of about size messages, but the last.
func (w *writer) writeParts(s splitter, size uint64) error {
	var parts []op
	split := &callOp{do: func(t *tx) (err error) {
		parts, err = s.split(t, size)
		return err
	}}
	// The first transaction only calls split; the following ones apply the parts.
	for list := []op{split}; len(list) > 0; list, parts = append(list[1:], parts...), nil {
		t, err := w.attempt(list[:1])
		if err != nil {
			return err
		}
		w.quotas.update(t.usage)
		w.db.restartWAL()
	}
	return nil
}
