package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"peerlink/broker"
	"peerlink/internal/wait"
)

const (
	// maxConcurrentMoves is how many messages of a session are made dead letters at once.
	maxConcurrentMoves = 64
	// deadLetterEndTime is how long the end of a session waits for attempts in
	// progress.
	deadLetterEndTime = time.Second
)

// deadLetterer moves messages of a session to the dead letters, concurrently with
// sending. While the broker cannot store a message there, the message stays in its
// queue, and the move is retried. The messages behind it are sent meanwhile. Only the broker
// bounds how many messages may wait (see [broker.ErrTooManyExcluded]). Messages not moved when
// the session ends stay in the queue.
type deadLetterer struct {
	session    *session
	consumer   broker.Consumer
	added      wait.Signal   // notified when there is a further job
	moved      wait.Signal   // notified when a message has been moved
	ending     chan struct{} // closed when no more attempts may begin
	ended      chan struct{} // closed when run has returned
	moveCtx    context.Context
	abortMoves context.CancelFunc

	mu      sync.Mutex
	waiting []deadLetterJob // in the order of the next attempts, without those in progress
	moving  []deadLetterJob // the jobs whose attempts are in progress
	err     error           // why the last attempts have failed; nil if they have not
	full    bool            // add waits, because the broker excludes no further message

	// The first jobs are messages that the session before could not move: their number, and since
	// when they wait.
	before      int
	beforeSince time.Time
}

// deadLetterJob is a message that is to become a dead letter. It does not contain the body, so that
// many jobs may wait.
type deadLetterJob struct {
	tag    uint64
	typ    string
	fp     fingerprint
	reason error
	added  time.Time
}

func newDeadLetterer(ctx context.Context, se *session, consumer broker.Consumer) *deadLetterer {
	dl := &deadLetterer{
		session: se, consumer: consumer,
		added: wait.NewSignal(), moved: wait.NewSignal(),
		ending: make(chan struct{}), ended: make(chan struct{}),
	}
	dl.before, dl.beforeSince = se.sender.tracker.heldBefore(time.Now())
	dl.moveCtx, dl.abortMoves = context.WithCancel(ctx)
	go dl.run()
	return dl
}

// add schedules the move of a message, which cannot be sent for the given reason, to the dead
// letters. add blocks while the broker accepts no further message that waits to be moved (see
// [broker.ErrTooManyExcluded]). After add has returned nil, no confirmation of a later message
// removes the message from the queue.
func (dl *deadLetterer) add(ctx context.Context, d broker.Delivery, fp fingerprint, reason error) error {
	for {
		err := dl.consumer.Exclude(d.Tag)
		if err == nil {
			break
		}
		if !errors.Is(err, broker.ErrTooManyExcluded) {
			return err
		}
		dl.update(func() { dl.full = true })
		select {
		case <-dl.moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	dl.update(func() {
		dl.full = false
		added := time.Now()
		if dl.before > 0 {
			dl.before--
			added = dl.beforeSince
		}
		dl.waiting = append(dl.waiting, deadLetterJob{d.Tag, d.Type, fp, reason, added})
	})
	dl.added.Notify()
	return nil
}

// busy reports whether messages wait to be moved.
func (dl *deadLetterer) busy() bool {
	dl.mu.Lock()
	defer dl.mu.Unlock()
	return len(dl.waiting)+len(dl.moving) > 0
}

// update calls change, which may change the fields that mu guards, and passes the new state to the
// tracker.
func (dl *deadLetterer) update(change func()) {
	dl.mu.Lock()
	defer dl.mu.Unlock()
	change()
	dl.session.sender.tracker.setHeld(len(dl.waiting)+len(dl.moving), dl.oldest(), dl.full, dl.err)
}

// oldest returns when the job was added that waits longest, or, while jobs whose attempts have failed
// are behind others, when one of the oldest was. It returns the zero time if there are no jobs. The
// caller holds mu.
func (dl *deadLetterer) oldest() time.Time {
	var oldest time.Time
	for _, jobs := range [][]deadLetterJob{dl.moving, dl.waiting} {
		if len(jobs) > 0 && (oldest.IsZero() || jobs[0].added.Before(oldest)) {
			oldest = jobs[0].added
		}
	}
	return oldest
}

// run moves messages until end is called. After an attempt has failed, there is a pause, and the
// message is tried again after the others. While all attempts fail, only one message is tried at
// a time.
func (dl *deadLetterer) run() {
	defer close(dl.ended)
	r, atOnce := newRetries(100*time.Millisecond, 5*time.Second), maxConcurrentMoves
	for {
		select {
		case <-dl.ending:
			return
		default:
		}
		jobs := dl.next(atOnce)
		if len(jobs) == 0 {
			select {
			case <-dl.added:
			case <-dl.ending:
			}
			continue
		}
		failed, err := dl.moveAll(jobs)
		dl.update(func() {
			dl.waiting, dl.moving, dl.err = append(dl.waiting, failed...), nil, err
		})
		if len(failed) < len(jobs) {
			dl.moved.Notify()
			r.reset()
			atOnce = maxConcurrentMoves
		} else {
			atOnce = 1
		}
		if len(failed) == 0 {
			continue
		}
		select {
		case <-time.After(r.pause()):
		case <-dl.ending:
		}
	}
}

// next removes up to n jobs from the front of waiting, makes them those in progress, and returns them.
func (dl *deadLetterer) next(n int) []deadLetterJob {
	dl.mu.Lock()
	defer dl.mu.Unlock()
	n = min(n, len(dl.waiting))
	jobs := slices.Clone(dl.waiting[:n])
	dl.waiting, dl.moving = dl.waiting[n:], jobs
	return jobs
}

// moveAll makes one attempt for each job. It returns the jobs whose attempts have failed, and the
// error of one of them.
func (dl *deadLetterer) moveAll(jobs []deadLetterJob) (failed []deadLetterJob, err error) {
	errs := make([]error, len(jobs))
	var wg sync.WaitGroup
	for i := range jobs {
		wg.Go(func() { errs[i] = dl.move(&jobs[i]) })
	}
	wg.Wait()
	for i, e := range errs {
		if e == nil {
			continue
		}
		failed = append(failed, jobs[i])
		if !errors.Is(e, broker.ErrReopen) {
			err = e
		}
	}
	return failed, err
}

// move makes one attempt to make a message a dead letter.
func (dl *deadLetterer) move(j *deadLetterJob) error {
	se := dl.session
	err := dl.consumer.DeadLetter(dl.moveCtx, j.tag, j.reason.Error())
	switch {
	case err == nil:
		se.log.Error("message set aside, it can not be sent", "type", j.typ, "err", j.reason)
		se.sender.peer.stats.recordError(outgoing, fmt.Errorf("message set aside, it can not be sent: %w", j.reason))
		se.sender.peer.stats.setAside.Add(1)
		se.sender.refusals.forget(j.fp)
	case errors.Is(err, broker.ErrReopen):
		// The next session moves it, and this one ends soon.
	case dl.moveCtx.Err() == nil:
		se.sender.logThrottled(se.log, slog.LevelWarn, "message can be neither sent nor set aside: it stays in the queue, and setting it aside is tried again", "type", j.typ, "reason", j.reason, "err", err)
	}
	return err
}

// end stops run. It waits for the attempts in progress, and cancels them after deadLetterEndTime.
func (dl *deadLetterer) end() {
	close(dl.ending)
	late := time.AfterFunc(deadLetterEndTime, dl.abortMoves)
	defer late.Stop()
	<-dl.ended
	dl.abortMoves()
	dl.session.sender.tracker.leaveHeld()
}
