package link

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"peerlink/broker"
)

const (
	// maxAsides is how many messages of a connection may wait to be set aside. When
	// there are as many, nothing more is sent until one of them is.
	maxAsides = 64
	// asidesEnd is how long the end of a connection waits for those under way.
	asidesEnd = time.Second
)

// asides sets messages of a session aside, beside what is sent. The broker may be
// unable to do that for a while, for it has to store them in another place; then
// they are kept, and tried again. What is left when the session ends stays in its
// queue.
type asides struct {
	session  *session
	consumer broker.Consumer
	room     chan struct{} // has an element for each message
	ending   chan struct{} // closed when nothing more is to be begun
	life     context.Context
	stop     context.CancelFunc
	wg       sync.WaitGroup
}

func newAsides(ctx context.Context, se *session, consumer broker.Consumer) *asides {
	a := &asides{session: se, consumer: consumer, room: make(chan struct{}, maxAsides), ending: make(chan struct{})}
	a.life, a.stop = context.WithCancel(ctx)
	return a
}

// add takes over a message that can not be sent, for this reason. It waits while
// there is no room for it. Once it returns, no confirmation of a later message
// removes this one.
func (a *asides) add(ctx context.Context, d broker.Delivery, print fingerprint, reason error) error {
	select {
	case a.room <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := a.consumer.Keep(d.Tag); err != nil {
		<-a.room
		return err
	}
	typ := d.Type // and not the body, which the broker has
	a.wg.Go(func() {
		defer func() { <-a.room }()
		a.work(d.Tag, typ, print, reason)
	})
	return nil
}

// work tries until the message is set aside, or the session ends.
func (a *asides) work(tag uint64, typ string, print fingerprint, reason error) {
	se := a.session
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = 100*time.Millisecond, 5*time.Second
	for first := true; ; first = false {
		err := a.consumer.SetAside(a.life, tag, reason.Error())
		if err == nil {
			se.log.Error("message set aside, it can not be sent", "type", typ, "err", reason)
			se.peer.tally.note(fmt.Errorf("message set aside, it can not be sent: %w", reason))
			se.peer.tally.setAside.Add(1)
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
		case <-time.After(pauses.NextBackOff()):
		case <-a.ending:
			return
		}
	}
}

// end gives up what is not under way, and waits a moment for the rest.
func (a *asides) end() {
	close(a.ending)
	late := time.AfterFunc(asidesEnd, a.stop)
	defer late.Stop()
	a.wg.Wait()
	a.stop()
}
