package embedded

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"peerlink/broker"
	"peerlink/internal/bell"
	"peerlink/internal/pulse"
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
	// (see isVerdict) it must keep for settle.
	apply(*tx) error
	// settle is called once: after the COMMIT, or with the reason why there
	// will be none.
	settle(error)
}

// batch is a list of operations that share a transaction.
type batch struct {
	ops    []op
	weight weight // of the messages among them
}

// writer is the goroutine that writes; see the package comment.
type writer struct {
	db     *writeConn
	log    *slog.Logger
	bells  *bells
	budget *budget
	quotas *quotas

	wake bell.Bell

	mu     sync.Mutex
	next   batch // being gathered
	number int   // of the batch being gathered
	closed bool

	trouble atomic.Pointer[Trouble] // nil while writing works

	pulse pulse.Pulse // of the goroutine

	done chan struct{} // closed when the goroutine has ended
	err  error         // why it could not write the last batch; valid after done
}

func newWriter(db *writeConn, log *slog.Logger, bells *bells, budget *budget, quotas *quotas) *writer {
	return &writer{db: db, log: log, bells: bells, budget: budget, quotas: quotas, wake: bell.New(), done: make(chan struct{})}
}

// submit adds an operation to the batch being gathered, with the part of the
// budget that it has acquired: the writer releases it, submit if it fails.
func (w *writer) submit(o op, part weight) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.submitLocked(o, part)
}

func (w *writer) submitLocked(o op, part weight) error {
	if w.closed {
		w.budget.release(part)
		return broker.ErrClosed
	}
	w.next.ops = append(w.next.ops, o)
	w.next.weight.add(part)
	w.wake.Ring()
	return nil
}

// gathering tells whether the batch with this number can still be added to.
// The caller holds w.mu.
func (w *writer) gathering(number int) bool { return number == w.number && !w.closed }

// take returns the batch that has gathered, and starts the next. The memory
// of used becomes that of the next.
func (w *writer) take(used batch, closing bool) batch {
	clear(used.ops)
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.next
	w.next = batch{ops: used.ops[:0]}
	w.number++
	w.closed = w.closed || closing
	return b
}

// run writes until life ends, and then what is left.
func (w *writer) run(life context.Context) {
	defer close(w.done)
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	var b batch
	defer w.pulse.Stop()
	for {
		w.pulse.Beat()
		select {
		case <-life.Done():
		case <-w.wake:
		case <-poll.C:
			w.lookForOthers()
			w.lookForFile()
			continue
		}
		closing := life.Err() != nil
		b = w.take(b, closing)
		if len(b.ops) > 0 {
			w.err = cmp.Or(w.err, w.write(life, b))
		}
		if closing {
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

// write commits a batch, however often it must try, and tells everyone. Once
// life has ended it tries only once more.
func (w *writer) write(life context.Context, b batch) error {
	var t *tx
	var err error
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		w.pulse.Beat()
		last := life.Err() != nil
		if t, err = w.attempt(b.ops); err == nil {
			w.recovered()
			break
		}
		w.failed(err)
		if last {
			break
		}
		select {
		case <-life.Done():
		case <-time.After(pause):
		}
	}
	w.budget.release(b.weight)
	if err != nil {
		err = fmt.Errorf("%w: %d operations could not be written: %w", broker.ErrClosed, len(b.ops), err)
	} else {
		w.quotas.update(t.usage)
		for _, q := range t.queues {
			switch {
			case q.movedBack:
				w.bells.ring(q.name) // the file has them all
			case len(q.added) > 0:
				w.bells.announce(q.name, q.first, q.added)
			}
		}
	}
	for _, o := range b.ops {
		o.settle(err)
	}
	return err
}

// attempt applies and commits operations in one transaction.
func (w *writer) attempt(ops []op) (t *tx, err error) {
	defer func() {
		if err != nil {
			w.db.undo()
		}
	}()
	if err := w.db.start(); err != nil {
		return nil, err
	}
	// Now nobody else can write: what is known by heart holds, or is known to
	// be old.
	changed, err := w.db.changedByOthers()
	if err != nil {
		return nil, err
	}
	if changed {
		if err := w.noticeOthers(); err != nil {
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

// lookForOthers wakes everyone when another process has written. If it can not
// tell, the next transaction will have the same trouble, and report it.
func (w *writer) lookForOthers() {
	if changed, err := w.db.changedByOthers(); err == nil && changed {
		_ = w.noticeOthers()
	}
}

// lookForFile notices, while nothing is written, that the files are gone, or
// back: no other trouble outlasts the writing of a batch.
func (w *writer) lookForFile() {
	if err := w.db.inPlace(); err != nil {
		w.failed(err)
		return
	}
	w.recovered()
}

// noticeOthers wakes everyone, and admits peers whose messages others have
// taken: nothing of such a peer may come here that would show it.
func (w *writer) noticeOthers() error {
	w.bells.ringAll()
	if !w.quotas.limited() {
		return nil
	}
	usage, err := w.db.usage()
	if err == nil {
		w.quotas.update(usage)
	}
	return err
}

// failed notes that a transaction failed, and reports the first.
func (w *writer) failed(err error) {
	if w.trouble.Load() != nil {
		return
	}
	w.trouble.Store(&Trouble{Since: time.Now(), Err: err})
	w.log.Error("can not write the message store; nothing is lost or confirmed, trying again", "err", err)
}

func (w *writer) recovered() {
	if t := w.trouble.Swap(nil); t != nil {
		w.log.Info("the message store can be written again", "after", time.Since(t.Since).Round(time.Millisecond))
	}
}
