package link

import (
	"context"
	"errors"
	"sync"
	"time"

	"peerlink/broker"
)

// Services that serve the same node share its queues. One that was started later, or has
// come back, asks those that have more than it has: each of its senders that stands by asks
// the service that sends from its queue, and that leaves the queue if it has at least two more.

// errShared is why a sender leaves its queue to another service.
var errShared = errors.New("another process of the node has fewer queues, and gets this one")

const (
	// maxAsks is how many queues a service asks for in a period.
	maxAsks = 8
	// keepTime is how long a queue is kept that was left and that nobody has taken: the
	// other service may not be able to reach the peer.
	keepTime = 10 * time.Minute
)

// shares counts the queues that a service has and those that it asks for.
type shares struct {
	period time.Duration // after which requests are taken for refused

	mu    sync.Mutex
	has   int // queues from which the service sends
	asked int // in this period
	until time.Time
}

// share is one queue of them.
type share struct {
	of   *shares
	left bool // to another service
}

func (s *shares) add() *share {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.has++
	return &share{of: s}
}

// leave reports whether the queue is to be left to a service that has so many.
func (sh *share) leave(has int) bool {
	sh.of.mu.Lock()
	defer sh.of.mu.Unlock()
	if sh.left || sh.of.has < has+2 {
		return false
	}
	sh.of.has--
	sh.left = true
	return true
}

// end is called when the service does not send from the queue any more.
func (sh *share) end() {
	sh.of.mu.Lock()
	defer sh.of.mu.Unlock()
	if !sh.left {
		sh.of.has--
	}
}

// ask reports whether the service may ask for one more queue, and how many it will have
// if those that it has asked for already are left to it.
func (s *shares) ask(now time.Time) (has int, may bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !now.Before(s.until) {
		s.asked, s.until = 0, now.Add(s.period)
	}
	if s.asked == maxAsks {
		return 0, false
	}
	has = s.has + s.asked
	s.asked++
	return has, true
}

// offer calls leave when another service is to have the queue of a consumer. The
// function that it returns is called before the consumer is closed.
func (sd *sender) offer(consumer broker.Consumer, leave func()) (done func()) {
	if !sd.leftAt.IsZero() { // nobody has taken it
		sd.leftAt, sd.keepUntil = time.Time{}, time.Now().Add(keepTime)
	}
	sh := sd.s.shares.add()
	ended := make(chan struct{})
	asked, ok := consumer.(broker.Asked)
	if !ok || time.Now().Before(sd.keepUntil) {
		return sh.end
	}
	go func() {
		for {
			select {
			case has := <-asked.Asked():
				if sh.leave(has) {
					sd.log.Info("another process of the node has fewer queues, and gets this one")
					leave()
				}
			case <-ended:
				return
			}
		}
	}()
	return func() { close(ended); sh.end() }
}

// askForQueue asks the service that sends from the queue to leave it, if there is
// reason to. It reports whether it has.
func (sd *sender) askForQueue(ctx context.Context) bool {
	b, ok := sd.s.cfg.Broker.(broker.Sharing)
	if !ok {
		return false
	}
	has, may := sd.s.shares.ask(time.Now())
	if !may {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, sd.s.shares.period)
	defer cancel()
	return b.Ask(ctx, sd.queue, has) == nil // the next attempt says what is wrong
}
