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
	// letters. At this limit, nothing is sent until one of them has.
	maxDeadLetterJobs = 64
	// deadLetterEndTime is how long the end of a session waits for attempts in
	// progress.
	deadLetterEndTime = time.Second
)

// deadLetterer moves messages of a session to the dead letters, concurrently with
// sending. The broker may be unable to store them there for a while; then they are
// kept, and the move is retried. Messages that are left when the session ends stay in
// their queue.
type deadLetterer struct {
	session  *session
	consumer broker.Consumer
	slots    chan struct{} // has an element for each message not moved yet
	ending   chan struct{} // closed when no more attempts may begin
	life     context.Context
	stop     context.CancelFunc
	wg       sync.WaitGroup
}

func newDeadLetterer(ctx context.Context, se *session, consumer broker.Consumer) *deadLetterer {
	a := &deadLetterer{session: se, consumer: consumer, slots: make(chan struct{}, maxDeadLetterJobs), ending: make(chan struct{})}
	a.life, a.stop = context.WithCancel(ctx)
	return a
}

// add takes over a message that can not be sent for the given reason. It blocks while
// maxDeadLetterJobs messages wait. Once it returns, no confirmation of a later message
// removes this one from the queue.
func (a *deadLetterer) add(ctx context.Context, d broker.Delivery, print fingerprint, reason error) error {
	select {
	case a.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := a.consumer.Exclude(d.Tag); err != nil {
		<-a.slots
		return err
	}
	typ := d.Type // the goroutine does not keep the body, which the broker has
	a.wg.Go(func() {
		defer func() { <-a.slots }()
		a.move(d.Tag, typ, print, reason)
	})
	return nil
}

// move retries until the message is a dead letter, or the session ends.
func (a *deadLetterer) move(tag uint64, typ string, print fingerprint, reason error) {
	se := a.session
	r := newRetries(100*time.Millisecond, 5*time.Second)
	for first := true; ; first = false {
		err := a.consumer.DeadLetter(a.life, tag, reason.Error())
		if err == nil {
			se.log.Error("message set aside, it can not be sent", "type", typ, "err", reason)
			se.peer.stats.recordError(fmt.Errorf("message set aside, it can not be sent: %w", reason))
			se.peer.stats.setAside.Add(1)
			se.refused.forget(print)
			return
		}
		if a.life.Err() != nil {
			return
		}
		if first {
			se.log.Warn("message that can not be sent can not be set aside either, it is kept and tried again", "type", typ, "reason", reason, "err", err)
		}
		select {
		case <-time.After(r.pause()):
		case <-a.ending:
			return
		}
	}
}

// end waits for attempts in progress, for at most deadLetterEndTime, and begins no
// more.
func (a *deadLetterer) end() {
	close(a.ending)
	late := time.AfterFunc(deadLetterEndTime, a.stop)
	defer late.Stop()
	a.wg.Wait()
	a.stop()
}
