package link

import (
	"context"
	"fmt"
	"sync"
	"time"

	"peerlink/broker"
)

const (
	// maxDeadLetterJobs is how many messages of a session may wait to become dead
	// letters. If there is one more, nothing is sent until one of them is a dead letter.
	maxDeadLetterJobs = 64
	// deadLetterEndTime is how long the end of a session waits for attempts in
	// progress.
	deadLetterEndTime = time.Second
)

// deadLetterer moves messages of a session to the dead letters, concurrently with
// sending. While the broker cannot store a message there, the message stays in its
// queue, and the move is retried. Messages not moved when the session ends stay in the
// queue.
type deadLetterer struct {
	session    *session
	consumer   broker.Consumer
	slots      chan struct{} // contains an element for each message not moved yet
	ending     chan struct{} // closed when no more attempts may begin
	moveCtx    context.Context
	abortMoves context.CancelFunc
	wg         sync.WaitGroup
}

func newDeadLetterer(ctx context.Context, se *session, consumer broker.Consumer) *deadLetterer {
	dl := &deadLetterer{session: se, consumer: consumer, slots: make(chan struct{}, maxDeadLetterJobs), ending: make(chan struct{})}
	dl.moveCtx, dl.abortMoves = context.WithCancel(ctx)
	return dl
}

// add starts to move a message that cannot be sent for the given reason. It blocks while
// maxDeadLetterJobs messages wait. Once it has returned nil, no confirmation of a later
// message removes the message from the queue.
func (dl *deadLetterer) add(ctx context.Context, d broker.Delivery, fp fingerprint, reason error) error {
	select {
	case dl.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := dl.consumer.Exclude(d.Tag); err != nil {
		<-dl.slots
		return err
	}
	typ := d.Type // not d, so that the goroutine does not keep the body in memory
	dl.wg.Go(func() {
		defer func() { <-dl.slots }()
		dl.move(d.Tag, typ, fp, reason)
	})
	return nil
}

// move retries until the message is a dead letter, or the session ends.
func (dl *deadLetterer) move(tag uint64, typ string, fp fingerprint, reason error) {
	se := dl.session
	r := newRetries(100*time.Millisecond, 5*time.Second)
	for first := true; ; first = false {
		err := dl.consumer.DeadLetter(dl.moveCtx, tag, reason.Error())
		if err == nil {
			se.log.Error("message set aside, it can not be sent", "type", typ, "err", reason)
			se.sender.peer.stats.recordError(outgoing, fmt.Errorf("message set aside, it can not be sent: %w", reason))
			se.sender.peer.stats.setAside.Add(1)
			se.sender.refusals.forget(fp)
			return
		}
		if dl.moveCtx.Err() != nil {
			return
		}
		if first {
			se.log.Warn("message can be neither sent nor set aside: it stays in the queue, and setting it aside is tried again", "type", typ, "reason", reason, "err", err)
		}
		select {
		case <-time.After(r.pause()):
		case <-dl.ending:
			return
		}
	}
}

// end waits for attempts in progress, for at most deadLetterEndTime, and begins no
// more.
func (dl *deadLetterer) end() {
	close(dl.ending)
	late := time.AfterFunc(deadLetterEndTime, dl.abortMoves)
	defer late.Stop()
	dl.wg.Wait()
	dl.abortMoves()
}
