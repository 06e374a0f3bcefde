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
	// pollInterval is how often an idle writer looks whether another process
	// has written.
	pollInterval = 250 * time.Millisecond
	// A failed transaction is tried again after firstPause, then after twice
	// as long each time, up to maxPause.
	firstPause = 100 * time.Millisecond
	maxPause   = 5 * time.Second
)

// op is one operation on the file, waiting for the writer.
type op interface {
	// apply does it. An error fails the whole transaction, which is then tried
	// again: apply may run several times. What concerns this operation alone
	// (see isResult) it must keep for settle.
	apply(*tx) error
	// finish is called once: after the COMMIT, or with the reason why there
	// will be none.
	finish(error)
	// cost returns what the operation does, as far as it takes room, and its
	// part of the budget for that.
	cost() (kind, quantity)
}

// kind says what becomes of an operation for which there is no room.
type kind int

const (
	// maintenance removes, moves or binds. It is written before everything that
	// takes room, and is never held up by it.
	maintenance kind = iota
	// received stores messages of peers. It waits until there is room.
	received
	// sent stores messages of applications. It is refused with [ErrFull], or
	// [ErrUnwritable].
	sent
)

// writer is the goroutine that writes; see the package comment.
type writer struct {
	db                *writeConn
	log               *slog.Logger
	notifier          *notifier
	received          *budget // for messages of peers
	sent              *budget // for messages of applications
	quotas            *quotas
	disk              *disk
	reserve           reserve
	diskCheckInterval time.Duration // how old a look at the disk may be
	tryWriting        func() error  // writes a small file beside the store
	shrinks           bool          // gives room inside the file back to the disk

	wake wait.Signal

	mu       sync.Mutex
	next     []op // being gathered
	number   int  // of the list being gathered
	closed   bool
	refusing error // why messages of applications are refused at once; nil: they are not

	trouble atomic.Pointer[Trouble] // nil while writing works

	pulse pulse.Pulse // of the goroutine

	// The rest belongs to the goroutine.
	held        []op             // what can not be written yet, in order
	stopped     bool             // not even upkeep can be written: nothing more is taken
	pause       time.Duration    // before the next attempt
	retry       time.Time        // when that is
	retryTimer  <-chan time.Time // receives then
	worked      bool             // since the last look at the disk
	diskChecked time.Time        // when that was

	done chan struct{} // closed when the goroutine has ended
	err  error         // why it could not write the last operations; valid after done
}

// budgetOf returns the budget out of which operations of a kind have their part.
func (w *writer) budgetOf(k kind) *budget {
	if k == sent {
		return w.sent
	}
	return w.received
}

// submit adds an operation to the list being gathered, with the part of the
// budget that it has acquired: the writer releases it, submit if it fails.
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

// isGathering reports whether the list with this number can still be added to.
// The caller holds w.mu.
func (w *writer) isGathering(number int) bool { return number == w.number && !w.closed }

// take returns the list that has gathered, and starts the next. The memory
// of used becomes that of the next.
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

// run writes until life ends, and then what is left.
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
			wake = nil // what comes gathers
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

// wait waits until the goroutine has ended, and returns why it could not
// write the last operations.
func (w *writer) wait() error {
	<-w.done
	return w.err
}

// work writes what has gathered and what is held, in one transaction. What can
// not be written is held, and tried again after a pause. If it is room that is
// missing, upkeep is written alone, and messages of applications are refused.
func (w *writer) work(ops []op, closing bool) {
	if len(w.held) > 0 {
		ops = append(w.held, ops...)
	}
	if len(ops) == 0 {
		return
	}
	w.worked = true
	err := w.lastError()
	if err == nil || closing || !time.Now().Before(w.retry) {
		ops = w.refuseFirst(ops)
		if err = w.checkRoom(ops); err == nil {
			err = w.withReason(w.write(ops))
		}
		if w.disk.needsCheck() {
			if inside, err := w.db.freeInside(); err == nil {
				w.disk.check(inside, &w.reserve)
			}
		}
		if err == nil {
			w.held = nil
			w.recovered()
			return
		}
		if canRemove(err) && w.removeOnly(ops) {
			return
		}
		w.failed(err)
		w.setRetry()
	}
	w.stopped = !canRemove(err)
	if !w.stopped {
		ops = w.refuse(ops, err)
		ops, w.stopped = w.writeUpkeep(ops)
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

// removeOnly reports whether operations take no room, and are written although
// there is none.
func (w *writer) removeOnly(ops []op) bool {
	if ours, peers := stores(ops); ours.messages > 0 || peers.messages > 0 {
		return false
	}
	left, failed := w.writeUpkeep(ops)
	if failed || len(left) > 0 {
		return false
	}
	w.held, w.retryTimer = nil, nil
	return true
}

// refuseAtOnce refuses messages of applications from now on, as refuse does, until
// writing is possible again.
func (w *writer) refuseAtOnce(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refusing = err
}

// refusal returns the error that applications get for messages that are refused.
func refusal(err error) error {
	switch {
	case errors.Is(err, ErrFull), errors.Is(err, ErrUnwritable):
		return err
	case isFull(err):
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return fmt.Errorf("%w: %w", ErrUnwritable, err)
}

// lastError returns why the last attempt has failed; nil if it has not.
func (w *writer) lastError() error {
	if t := w.trouble.Load(); t != nil {
		return t.Err
	}
	return nil
}

// failHeld ends the operations that can not be written before the end.
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

// checkRoom reports [ErrFull] if there is no room for what operations store.
func (w *writer) checkRoom(ops []op) error {
	ours, peers := stores(ops)
	switch {
	case ours.messages == 0 && peers.messages == 0:
		return nil
	case w.reserve.missing:
		return cmp.Or(w.reserve.err, fmt.Errorf("%w: its reserve of %d bytes can not be made", ErrFull, w.reserve.size))
	case ours.messages > 0:
		return w.disk.checkRoom(sent, ours.bytes+peers.bytes)
	}
	return w.disk.checkRoom(received, peers.bytes)
}

// stores returns what operations store, of applications and of peers.
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

// refuseFirst ends the operations of applications if there is no room for all, but for
// those of peers alone: these may use room that applications may not.
func (w *writer) refuseFirst(ops []op) []op {
	ours, peers := stores(ops)
	if ours.messages == 0 || peers.messages == 0 || w.reserve.missing {
		return ops
	}
	if err := w.disk.checkRoom(sent, ours.bytes+peers.bytes); err != nil && w.disk.checkRoom(received, peers.bytes) == nil {
		return w.refuse(ops, err)
	}
	return ops
}

// refuse ends the operations of applications, which can not be written, and returns
// the others.
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

// writeUpkeep writes what takes no room, for which the reserve is given up if
// that may help. It returns the other operations, or all if even that has failed.
func (w *writer) writeUpkeep(ops []op) (left []op, failed bool) {
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
	err := w.withReason(w.write(alone))
	if err == nil {
		if w.reserve.missing {
			w.restartWAL() // so that the next transaction takes the room of this one
		}
		return left, false
	}
	if isDiskFault(err) {
		return ops, true // it is not room that is missing
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

// maxStep is how many messages one transaction removes while room is missing. It
// needs a few MiB at most.
const maxStep = 500

// steps is implemented by operations that can be done in parts, each in a
// transaction of its own.
type steps interface {
	// split returns the operations that do a part of this one, each of up to
	// most messages, and leave a part of that size to it.
	split(t *tx, most uint64) ([]op, error)
}

// writeInSteps commits one operation in transactions that need little room, each of
// which takes the room of the one before.
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

// restartWAL moves the write-ahead log into the file, so that its room is used
// again. What fails here fails again in the next transaction.
func (w *writer) restartWAL() { _, _ = w.db.restart.number() }

// write commits operations in one transaction, and tells all callers.
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
			w.notifier.notify(q.name) // the file has them all
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
	// Now nobody else can write: what is cached is valid, or is known to
	// be old.
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

// checkOtherProcesses wakes everyone when another process has written. If it can not
// tell, the next transaction will have the same trouble, and report it.
func (w *writer) checkOtherProcesses() {
	if changed, err := w.db.changedByOthers(); err == nil && changed {
		_ = w.noteOtherProcesses()
	}
}

// poll notices what others have done to the file and the disk.
func (w *writer) poll() {
	w.checkOtherProcesses()
	if err := w.db.inPlace(); err != nil {
		w.failed(err)
		return
	}
	if len(w.held) == 0 && !time.Now().Before(w.retry) {
		w.tryAgain()
	}
	if time.Since(w.diskChecked) >= w.diskCheckInterval {
		w.checkDisk()
		w.diskChecked, w.worked = time.Now(), false
	}
}

// tryAgain ends the trouble, if there is any, where nothing waits that would show
// whether it has passed.
func (w *writer) tryAgain() {
	if isDiskFault(w.lastError()) && w.tryWriting() != nil {
		w.setRetry()
		return
	}
	w.recovered()
}

// setRetry makes the pause before the next attempt longer.
func (w *writer) setRetry() {
	w.pause = min(max(2*w.pause, firstPause), maxPause)
	w.retry = time.Now().Add(w.pause)
}

// checkDisk finds out how much room there is, and makes some. What can not be
// read is left to the next transaction, which has the same trouble.
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
		_, _ = w.db.truncate.number() // the room is wanted for the reserve
	}
	if w.reserve.missing && w.disk.checkRoom(sent, w.reserve.size) == nil && w.reserve.renew() == nil {
		w.retryNow()
	}
	w.disk.check(inside, &w.reserve)
}

// retryNow ends the pause before the next attempt.
func (w *writer) retryNow() {
	w.retry = time.Time{}
	if len(w.held) > 0 {
		w.retryTimer = time.After(0)
	}
}

// noteOtherProcesses wakes everyone, and admits peers whose messages others have
// taken: nothing of such a peer may come here that would show it.
func (w *writer) noteOtherProcesses() error {
	w.notifier.notifyAll()
	usage, err := w.db.usage()
	if err == nil {
		w.quotas.update(usage)
	}
	return err
}

// failed notes that a transaction failed, and reports the first.
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
	w.pause, w.retry, w.retryTimer, w.stopped = 0, time.Time{}, nil, false
	w.refuseAtOnce(nil)
	if t := w.trouble.Swap(nil); t != nil {
		w.log.Info("the message store can be written again", "after", time.Since(t.Since).Round(time.Millisecond))
	}
}
