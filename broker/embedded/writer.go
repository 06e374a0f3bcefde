package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"peerlink/broker"
	"peerlink/internal/pulse"
	"peerlink/internal/wait"
)

const (
	// pollInterval is how often an idle writer checks whether another process has written.
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
	// alone (see isResult) must be kept for finish instead.
	apply(*tx) error
	// finish is called once: after the COMMIT, or with the reason why there will be no
	// COMMIT.
	finish(error)
	// cost returns the kind of the operation and its part of the budget of this kind.
	cost() (kind, quantity)
}

// kind determines what happens to an operation when space is missing.
type kind int

const (
	// maintenance removes, moves or binds. It is written before operations that need
	// space, and never waits for them.
	maintenance kind = iota
	// received stores messages of peers. It waits until there is space.
	received
	// sent stores messages of applications. It is refused with [ErrFull] or
	// [ErrUnwritable].
	sent
)

// writer writes the file, on a single goroutine; see the package comment.
type writer struct {
	db                *writeConn
	log               *slog.Logger
	notifier          *notifier
	received          *budget // for messages of peers
	sent              *budget // for messages of applications
	quotas            *quotas
	disk              *disk
	reserve           reserve
	diskCheckInterval time.Duration        // interval between checks of the disk
	tryWriting        func(size int) error // writes a file beside the store
	shrinks           bool                 // return free space in the file to the disk

	wake wait.Signal

	mu       sync.Mutex
	next     []op // the list being collected
	number   int  // number of the list being collected
	closed   bool
	refusing error // why messages of applications are refused immediately; nil: they are not

	trouble atomic.Pointer[Trouble] // nil while writing succeeds

	pulse pulse.Pulse // of the goroutine

	// The remaining fields are used by the goroutine only.
	held        []op             // operations that can not be written yet, in order
	stopped     bool             // even maintenance operations fail: no operations are taken
	pause       time.Duration    // before the next attempt
	retry       time.Time        // time of the next attempt
	retryTimer  <-chan time.Time // receives at that time
	unwritten   need             // what could not be written since the trouble began
	worked      bool             // operations were written since the last check of the disk
	diskChecked time.Time        // time of the last check
	shrinkStep  int64            // how many bytes of the file to return to the disk next

	done chan struct{} // closed when the goroutine has ended
	err  error         // why the last operations could not be written; valid after done
}

// budgetOf returns the budget for operations of a kind.
func (w *writer) budgetOf(k kind) *budget {
	if k == sent {
		return w.sent
	}
	return w.received
}

// submit adds an operation to the list being collected. It takes over the operation's part
// of the budget: the writer releases it, or submit does if it fails.
func (w *writer) submit(o op) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.submitLocked(o)
}

func (w *writer) submitLocked(o op) error {
	if w.closed {
		w.release(o)
		return broker.ErrClosed
	}
	if k, _ := o.cost(); k == sent && w.refusing != nil {
		w.release(o)
		return refusal(w.refusing)
	}
	w.next = append(w.next, o)
	w.wake.Notify()
	return nil
}

func (w *writer) release(o op) {
	if k, part := o.cost(); k != maintenance {
		w.budgetOf(k).release(part)
	}
}

// isGathering reports whether operations can still be added to the list with this number.
// The caller holds w.mu.
func (w *writer) isGathering(number int) bool { return number == w.number && !w.closed }

// take returns the collected list, and starts the next one, which reuses the memory of
// used.
func (w *writer) take(used []op, closing bool) []op {
	clear(used)
	w.mu.Lock()
	defer w.mu.Unlock()
	ops := w.next
	w.next = used[:0]
	w.number++
	w.closed = w.closed || closing
	return ops
}

// run writes operations until life ends, and then the remaining ones.
func (w *writer) run(life context.Context) {
	defer close(w.done)
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	var ops []op
	defer w.pulse.Stop()
	for {
		w.pulse.Beat()
		wake := w.wake
		if w.stopped {
			wake = nil // new operations are only collected
		}
		select {
		case <-life.Done():
		case <-wake:
		case <-w.retryTimer:
		case <-poll.C:
			w.poll()
			continue
		}
		closing := life.Err() != nil
		ops = w.take(ops, closing)
		w.work(ops, closing)
		if closing {
			w.failHeld()
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

// work writes the new and the held operations in one transaction. Operations that can not
// be written are held, and retried after a pause. If the reason is missing space,
// maintenance operations are written alone, and messages of applications are refused;
// messages of peers wait only behind others that could not be written.
func (w *writer) work(ops []op, closing bool) {
	if len(w.held) > 0 {
		ops = append(w.held, ops...)
	}
	if len(ops) == 0 {
		return
	}
	w.worked = true
	err := w.lastError()
	due := err == nil || closing || !time.Now().Before(w.retry)
	peersOnly := false // messages of peers are written although messages of applications can not be
	if !due && len(w.held) == 0 && canRemove(err) {
		ops = w.refuse(ops, err)
		peersOnly = needOf(ops).kind == received
	}
	if due || peersOnly {
		ops = w.refuseIfNoRoom(ops)
		if err = w.checkRoom(ops); err == nil {
			err = w.withReason(w.write(ops), needOf(ops).bytes)
		}
		if w.disk.needsCheck() {
			if inside, err := w.db.freeInside(); err == nil {
				w.disk.check(inside, &w.reserve)
			}
		}
		if err == nil {
			w.held, w.retryTimer, w.stopped = nil, nil, false
			if due {
				w.tryAgain()
			}
			return
		}
		if canRemove(err) && w.writeIfMaintenanceOnly(ops) {
			return
		}
		w.unwritten.add(needOf(ops))
		w.failed(err)
		w.setRetry()
	}
	w.stopped = !canRemove(err)
	if !w.stopped {
		ops = w.refuse(ops, err)
		ops, w.stopped = w.writeMaintenance(ops)
	}
	if w.stopped && isUnwritable(err) {
		ops = w.refuse(ops, err)
		w.refuseAtOnce(err)
	}
	w.held, w.retryTimer = nil, nil
	if len(ops) > 0 {
		w.held, w.retryTimer = slices.Clone(ops), time.After(time.Until(w.retry))
	}
}

// writeIfMaintenanceOnly writes operations if all of them are maintenance, which is possible even
// without space. It reports whether all of them were written.
func (w *writer) writeIfMaintenanceOnly(ops []op) bool {
	if ours, peers := stores(ops); ours.messages > 0 || peers.messages > 0 {
		return false
	}
	left, failed := w.writeMaintenance(ops)
	if failed || len(left) > 0 {
		return false
	}
	w.held, w.retryTimer = nil, nil
	return true
}

// refuseAtOnce makes submit refuse messages of applications with err, until it is called
// with nil.
func (w *writer) refuseAtOnce(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refusing = err
}

// refusal returns the error for messages of applications that are refused.
func refusal(err error) error {
	switch {
	case errors.Is(err, ErrFull), errors.Is(err, ErrUnwritable):
		return err
	case isFull(err):
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return fmt.Errorf("%w: %w", ErrUnwritable, err)
}

// lastError returns the error of the last attempt, or nil if it succeeded.
func (w *writer) lastError() error {
	if t := w.trouble.Load(); t != nil {
		return t.Err
	}
	return nil
}

// failHeld finishes the operations that could not be written before the store is closed.
func (w *writer) failHeld() {
	if len(w.held) == 0 {
		return
	}
	w.err = fmt.Errorf("%w: %d operations could not be written: %w", broker.ErrClosed, len(w.held), w.lastError())
	for _, o := range w.held {
		w.release(o)
		o.finish(w.err)
	}
}

// checkRoom reports [ErrFull] if there is no space for the messages that the operations
// store.
func (w *writer) checkRoom(ops []op) error {
	n := needOf(ops)
	if n.kind == maintenance {
		return nil
	}
	return w.checkRoomFor(n)
}

func (w *writer) checkRoomFor(n need) error {
	if w.reserve.missing {
		return cmp.Or(w.reserve.err, fmt.Errorf("%w: its reserve of %d bytes can not be made", ErrFull, w.reserve.size))
	}
	return w.disk.checkRoom(n.kind, n.bytes)
}

// need is what a transaction needs space for: messages of this size in bytes, and whether
// messages of applications are among them.
type need struct {
	kind  kind
	bytes int64
}

// add makes n the larger of n and other.
func (n *need) add(other need) {
	n.kind, n.bytes = max(n.kind, other.kind), max(n.bytes, other.bytes)
}

// needOf returns what a transaction with these operations needs.
func needOf(ops []op) need {
	ours, peers := stores(ops)
	n := need{maintenance, ours.bytes + peers.bytes}
	switch {
	case ours.messages > 0:
		n.kind = sent
	case peers.messages > 0:
		n.kind = received
	}
	return n
}

// stores returns what the operations store for applications (ours) and for peers.
func stores(ops []op) (ours, peers quantity) {
	for _, o := range ops {
		switch k, part := o.cost(); k {
		case sent:
			ours.add(part)
		case received:
			peers.add(part)
		}
	}
	return ours, peers
}

// refuseIfNoRoom refuses the messages of applications if there is no space for all messages,
// but enough for those of peers: received messages may use space that applications may
// not.
func (w *writer) refuseIfNoRoom(ops []op) []op {
	ours, peers := stores(ops)
	if ours.messages == 0 || peers.messages == 0 || w.reserve.missing {
		return ops
	}
	if err := w.disk.checkRoom(sent, ours.bytes+peers.bytes); err != nil && w.disk.checkRoom(received, peers.bytes) == nil {
		return w.refuse(ops, err)
	}
	return ops
}

// refuse finishes the operations that store messages of applications with an error, and
// returns the others.
func (w *writer) refuse(ops []op, err error) []op {
	err = refusal(err)
	return slices.DeleteFunc(slices.Clone(ops), func(o op) bool {
		k, _ := o.cost()
		if k == sent {
			w.release(o)
			o.finish(err)
		}
		return k == sent
	})
}

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

// restartWAL checkpoints and restarts the write-ahead log, so that its space is reused.
// Errors are ignored: they recur in the next transaction.
func (w *writer) restartWAL() { _, _ = w.db.restart.number() }

// write commits operations in one transaction, and reports the result to all callers.
func (w *writer) write(ops []op) error {
	t, err := w.attempt(ops)
	if err != nil {
		return err
	}
	for _, o := range ops {
		w.release(o)
	}
	w.quotas.update(t.usage)
	for _, q := range t.queues {
		switch {
		case q.movedBack:
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

// attempt applies and commits operations in one transaction.
func (w *writer) attempt(ops []op) (t *tx, err error) {
	defer func() {
		if err != nil {
			w.db.undo()
		}
	}()
	w.pulse.Beat()
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
		if err := w.noteOtherProcesses(); err != nil {
			return nil, err
		}
	}
	t = newTx(w.db)
	for _, o := range ops {
		if err := o.apply(t); err != nil {
			return nil, err
		}
	}
	if err := t.finish(); err != nil {
		return nil, err
	}
	if err := w.db.mark(); err != nil {
		return nil, err
	}
	if err := w.db.inPlace(); err != nil {
		return nil, err
	}
	if _, err := w.db.commit.exec(); err != nil {
		return nil, err
	}
	if err := w.db.boundWAL(); err != nil {
		w.log.Warn("the write-ahead log of the message store grows", "err", err)
	}
	return t, nil
}

// checkOtherProcesses notifies all waiting consumers if another process has written.
// Errors are ignored: they recur in the next transaction, which reports them.
func (w *writer) checkOtherProcesses() {
	if changed, err := w.db.changedByOthers(); err == nil && changed {
		_ = w.noteOtherProcesses()
	}
}

// poll detects changes of the file and the disk by other processes.
func (w *writer) poll() {
	w.checkOtherProcesses()
	if err := w.db.inPlace(); err != nil {
		w.failed(err)
		return
	}
	if len(w.held) == 0 && !time.Now().Before(w.retry) {
		w.tryAgain() // no operation would show whether messages can be stored again
	}
	if time.Since(w.diskChecked) >= w.diskCheckInterval {
		w.checkDisk()
		w.diskChecked, w.worked = time.Now(), false
	}
}

// tryAgain ends the trouble, if there is any and what could not be written could be now.
func (w *writer) tryAgain() {
	if w.lastError() == nil {
		return
	}
	if err := w.canStore(); err != nil {
		w.failed(err)
		w.setRetry()
		return
	}
	w.recovered()
}

// canStore returns the reason if messages like those that could not be written since the
// trouble began can not be stored: it checks the free space, writes a file, since the free
// space does not account for a user's quota, and commits an empty transaction.
func (w *writer) canStore() error {
	n := w.unwritten
	n.add(need{kind: received})
	n.bytes = min(n.bytes, maxTrial) // more is for the transaction to show
	if err := w.checkRoomFor(n); err != nil {
		return err
	}
	if err := w.writeTrial(errTrial, n.bytes); err != nil {
		return err
	}
	return w.withReason(w.write(nil), 0)
}

// setRetry doubles the pause before the next attempt.
func (w *writer) setRetry() {
	w.pause = min(max(2*w.pause, firstPause), maxPause)
	w.retry = time.Now().Add(w.pause)
}

// checkDisk measures the free space, and shrinks the file. Read errors are ignored: they
// recur in the next transaction, which reports them.
func (w *writer) checkDisk() {
	inside, err := w.db.freeInside()
	if err == nil && w.shrinks {
		inside, err = w.shrink(inside)
	}
	if err != nil {
		return
	}
	w.reserve.lookFor()
	if free, err := w.disk.freeBytes(); w.reserve.missing && len(w.held) == 0 && err == nil && free+w.db.walBytes() >= w.reserve.size {
		_, _ = w.db.truncate.number() // its space is needed for the reserve
	}
	if w.reserve.missing && w.disk.checkRoom(sent, w.reserve.size) == nil && w.reserve.renew() == nil {
		w.retryNow()
	}
	w.disk.check(inside, &w.reserve)
}

// retryNow makes the next attempt due immediately.
func (w *writer) retryNow() {
	w.retry = time.Time{}
	if len(w.held) > 0 {
		w.retryTimer = time.After(0)
	}
}

// noteOtherProcesses notifies all waiting consumers, and updates the quotas: other
// processes may have removed messages of a peer that waits for its quota, and no operation
// of this process would show that.
func (w *writer) noteOtherProcesses() error {
	w.notifier.notifyAll()
	usage, err := w.db.usage()
	if err == nil {
		w.quotas.update(usage)
	}
	return err
}

// failed records that a transaction has failed, and logs the first failure.
func (w *writer) failed(err error) {
	err = explain(err)
	if t := w.trouble.Load(); t != nil {
		w.trouble.Store(&Trouble{Since: t.Since, Err: err})
		return
	}
	w.trouble.Store(&Trouble{Since: time.Now(), Err: err})
	w.log.Error("can not write the message store; nothing is lost or confirmed, trying again", "err", err)
}

func (w *writer) recovered() {
	w.pause, w.retry, w.retryTimer, w.stopped, w.unwritten = 0, time.Time{}, nil, false, need{}
	w.refuseAtOnce(nil)
	if t := w.trouble.Swap(nil); t != nil {
		w.log.Info("the message store can be written again", "after", time.Since(t.Since).Round(time.Millisecond))
	}
}
