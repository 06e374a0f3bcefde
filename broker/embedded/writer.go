package embedded

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"peerlink/broker"
	"peerlink/internal/latency"
	"peerlink/internal/pulse"
	"peerlink/internal/wait"
)

const (
	// pollInterval is the interval between calls of poll.
	pollInterval = 250 * time.Millisecond
	// A failed transaction is retried after firstPause, then after twice as long each
	// time, up to maxPause.
	firstPause = 100 * time.Millisecond
	maxPause   = 3 * time.Second
)

// op is an operation on the file, to be executed by the writer.
type op interface {
	// apply executes the operation. An error fails the whole transaction, which is then
	// retried: apply may be called several times. An error that concerns this operation
	// alone (see isOpError) must be kept for finish instead.
	apply(*tx) error
	// finish is called once: after the COMMIT, or with the reason why there will be no
	// COMMIT.
	finish(error)
	// cost returns the kind of the operation and its part of the budget of this kind.
	cost() (kind, quantity)
}

// kind determines what happens to an operation when space is missing, or when the file can
// not be written for another reason.
type kind int

const (
	// maintenance stores no new message: it confirms, acknowledges, moves to or from the dead
	// letters, deletes dead letters, or binds. While space is missing, it is written without
	// the operations of the other kinds.
	maintenance kind = iota
	// fromPeer stores messages of peers. It waits until they can be stored.
	fromPeer
	// fromApplication stores messages of applications. It is refused with [ErrFull] or
	// [ErrUnwritable].
	fromApplication
)

// writer writes the file, on a single goroutine; see the package comment.
type writer struct {
	// ioFailed is set when writing has failed for another reason than missing space. Then what
	// was written before may not be on the disk, whatever a later sync of the same file reports:
	// the file is checked at the next start, as after a crash. Only the writer's goroutine uses
	// it, until that has ended.
	ioFailed bool

	db                *writeConn
	log               *slog.Logger
	notifier          *notifier
	peerBudget        *budget // for messages of peers
	applicationBudget *budget // for messages of applications
	quotas            *quotas
	disk              *disk
	reserve           reserve
	diskCheckInterval time.Duration        // interval between checks of the disk
	tryWriting        func(size int) error // writes and removes a file beside the store
	shrinks           bool                 // whether free space in the file is released to the disk

	wake wait.Signal

	mu          sync.Mutex
	batch       []op // the operations being collected for the next transaction
	batchNumber int  // the number of this batch
	closed      bool
	refusing    error // why messages of applications are refused immediately; nil: they are not

	problem atomic.Pointer[Problem] // nil while writing succeeds

	commits latency.Durations // of transactions with operations, from BEGIN to the end of COMMIT

	pulse pulse.Pulse // of the goroutine

	// The remaining fields are used by the goroutine only.
	postponed      []op             // operations that could not be written yet, in order
	onlyCollecting bool             // maintenance operations fail too: until the next attempt, new operations are only collected
	pause          time.Duration    // before the next attempt
	retry          time.Time        // time of the next attempt
	retryTimer     <-chan time.Time // receives at that time
	unwritten      need             // the most that could not be written at once since the problem began
	active         bool             // there were operations since the last check of the disk
	diskChecked    time.Time        // time of the last check
	shrinkStep     int64            // how many bytes the next step of shrinking the file releases

	done chan struct{} // closed when the goroutine has ended
	err  error         // why the last operations could not be written; valid after done
}

// budgetOf returns the budget for operations of a kind.
func (w *writer) budgetOf(k kind) *budget {
	if k == fromApplication {
		return w.applicationBudget
	}
	return w.peerBudget
}

// submit adds an operation to the batch being collected. The operation's part of the budget
// is released by the writer when the operation ends, or by submit if submit fails.
func (w *writer) submit(o op) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.submitLocked(o)
}

// submitLocked is submit for a caller that holds w.mu.
func (w *writer) submitLocked(o op) error {
	if w.closed {
		w.release(o)
		return broker.ErrClosed
	}
	if k, _ := o.cost(); k == fromApplication && w.refusing != nil {
		w.release(o)
		return refusal(w.refusing)
	}
	w.batch = append(w.batch, o)
	w.wake.Notify()
	return nil
}

// release releases an operation's part of the budget, and of the peer's quota.
func (w *writer) release(o op) {
	if k, part := o.cost(); k != maintenance {
		w.budgetOf(k).release(part)
	}
	if p, ok := o.(*publishOp); ok {
		w.quotas.settle(p.rows...)
	}
}

// isCollecting reports whether the batch with this number is still being collected: operations
// in it can be extended. The caller holds w.mu.
func (w *writer) isCollecting(number int) bool { return number == w.batchNumber && !w.closed }

// take returns the batch that was collected, and begins the next one, which reuses the memory
// of used. If closing is true, no more operations are accepted.
func (w *writer) take(used []op, closing bool) []op {
	clear(used)
	w.mu.Lock()
	defer w.mu.Unlock()
	ops := w.batch
	w.batch = used[:0]
	w.batchNumber++
	w.closed = w.closed || closing
	return ops
}

// run writes operations until ctx is done, and then the remaining ones.
func (w *writer) run(ctx context.Context) {
	defer close(w.done)
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	var ops []op
	defer w.pulse.Stop()
	for {
		w.pulse.Beat()
		wake := w.wake
		if w.onlyCollecting {
			wake = nil // new operations are only collected
		}
		select {
		case <-ctx.Done():
		case <-wake:
		case <-w.retryTimer:
		case <-poll.C:
			w.poll()
			continue
		}
		closing := ctx.Err() != nil
		ops = w.take(ops, closing)
		w.writeOrPostpone(ops, closing)
		if closing {
			w.failPostponed()
			return
		}
	}
}

// wait waits until the goroutine has ended, and returns why the last operations could not
// be written.
func (w *writer) wait() error {
	<-w.done
	return w.err
}

// writeOrPostpone writes the postponed and the new operations in one transaction. If that fails,
// it does what postpone describes.
//
// While operations are postponed, they are tried again after a pause. If none is, new messages of
// peers are tried before the pause is over: the operation that failed may have been a message of
// an application, for which more space must be free.
func (w *writer) writeOrPostpone(ops []op, closing bool) {
	if len(w.postponed) > 0 {
		ops = append(w.postponed, ops...)
	}
	if len(ops) == 0 {
		return
	}
	w.active = true
	err := w.lastError()
	due := err == nil || closing || !time.Now().Before(w.retry)
	peersOnly := false // messages of peers are tried although the pause is not over
	if !due && len(w.postponed) == 0 && allowsMaintenance(err) {
		ops = w.refuse(ops, err)
		peersOnly = needOf(ops).kind == fromPeer
	}
	if !due && !peersOnly {
		w.postpone(ops, err, false)
		return
	}
	if ops, err = w.writeTogether(ops); err != nil {
		w.postpone(ops, err, true)
		return
	}
	w.postponed, w.retryTimer, w.onlyCollecting = nil, nil, false
	if due {
		w.tryRecovery()
	}
}

// writeTogether writes the operations in one transaction, if there is space for their messages.
// It first refuses the messages of applications if there is space only for those of peers. It
// returns the operations that were not refused, none of which is written if there is an error.
func (w *writer) writeTogether(ops []op) ([]op, error) {
	ops = w.refuseIfNoRoom(ops)
	err := w.checkRoom(ops)
	if err == nil {
		err = w.findReason(w.write(ops), needOf(ops).bytes)
	}
	if w.disk.needsCheck() {
		if freeInFile, err := w.db.freeInFile(); err == nil {
			w.disk.check(freeInFile, &w.reserve)
		}
	}
	return ops, err
}

// postpone handles operations that cannot be written together because of err: writing them has
// failed now (tried), or an earlier attempt has, and the pause after it is not over.
//
//   - Unless the reason is a lock of another process, messages of applications are refused.
//   - If it is missing space or an error of the disk, operations of the kind maintenance are
//     written without the others.
//   - If it is missing space, as many messages of peers are written as there is space for.
//
// The operations that are left are postponed until the next attempt.
func (w *writer) postpone(ops []op, err error, tried bool) {
	w.onlyCollecting = !allowsMaintenance(err)
	if tried {
		ops = w.recordFailedWrite(ops, err)
	}
	if !w.onlyCollecting {
		ops = w.refuse(ops, err)
		ops, w.onlyCollecting = w.writeMaintenance(ops)
	}
	if tried && !w.onlyCollecting && isFull(err) {
		var wrote bool
		if ops, wrote = w.writeWhatFits(ops); wrote {
			w.pause = 0
			w.setRetry()
		}
	}
	if w.onlyCollecting && isUnwritable(err) {
		ops = w.refuse(ops, err)
		w.setRefusing(err)
	}
	w.postponed, w.retryTimer = nil, nil
	if len(ops) > 0 {
		w.postponed, w.retryTimer = slices.Clone(ops), time.After(time.Until(w.retry))
	}
}

// recordFailedWrite records that writing the operations together has failed with err, and returns
// those that are still to be written. If all are of the kind maintenance, it first tries
// writeMaintenance, which can free space; if that writes them, nothing has failed.
func (w *writer) recordFailedWrite(ops []op, err error) []op {
	unwritten := needOf(ops)
	if !w.onlyCollecting && unwritten.kind == maintenance {
		ops, w.onlyCollecting = w.writeMaintenance(ops)
	}
	if len(ops) > 0 {
		w.unwritten.raiseTo(unwritten)
		w.recordFailure(err)
		w.setRetry()
	}
	return ops
}

// write commits operations in one transaction. If it succeeds, write reports the results to
// the callers and notifies consumers; otherwise it finishes no operation, and all of them
// can be tried again.
func (w *writer) write(ops []op) error {
	t, err := w.attempt(ops)
	if err != nil {
		return err
	}
	w.quotas.update(t.usage) // before release: what is stored is counted at every moment
	for _, o := range ops {
		w.release(o)
	}
	for _, q := range t.queues {
		switch {
		case q.gaps:
			w.notifier.notify(q.name) // the consumers read all of them from the file
		case len(q.added) > 0:
			w.notifier.notifyAdded(q.name, q.first, q.added)
		}
	}
	for _, o := range ops {
		o.finish(nil)
	}
	return nil
}

// attempt applies and commits operations in one transaction. It finishes none of them.
func (w *writer) attempt(ops []op) (t *tx, err error) {
	defer func() {
		if err != nil {
			w.db.undo()
		}
	}()
	w.pulse.Beat()
	began := time.Now()
	if t, err = w.apply(ops); err != nil {
		return nil, err
	}
	if _, err := w.db.commit.exec(); err != nil {
		return nil, err
	}
	now := time.Now()
	w.commits.Add(now.Sub(began), now)
	if needOf(ops).kind != maintenance {
		w.copyWALIfShort()
	}
	if err := w.db.boundWAL(w.disk.walLimit()); err != nil {
		w.log.Warn("the write-ahead log of the message store can not be truncated, and may grow", "err", err)
	}
	return t, nil
}

// apply begins a transaction and applies operations in it.
func (w *writer) apply(ops []op) (*tx, error) {
	if err := w.db.start(); err != nil {
		return nil, err
	}
	// From here on, no other process can write: the cache is valid, or changedByOthers
	// discards it.
	changed, err := w.db.changedByOthers()
	if err != nil {
		return nil, err
	}
	if changed {
		if err := w.handleForeignCommit(); err != nil {
			return nil, err
		}
	}
	t := newTx(w.db)
	for _, o := range ops {
		if err := o.apply(t); err != nil {
			return nil, err
		}
	}
	if err := t.finish(); err != nil {
		return nil, err
	}
	if err := w.db.writeToken(); err != nil {
		return nil, err
	}
	return t, w.db.checkNotGone()
}
