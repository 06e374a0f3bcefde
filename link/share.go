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
	// maxAsks is for how many queues a service asks at a time.
	maxAsks = 8
	// keepTime is how long a queue is kept that was left and that nobody has taken: the
	// other service may not be able to reach the peer.
	keepTime = 10 * time.Minute
)

// shares counts the queues that a service has and those that it asks for.
type shares struct {
	patience time.Duration // after which requests are taken for refused
	asking   sync.Mutex    // held while a request is sent: they must arrive in order

	mu    sync.Mutex
	has   int              // queues from which the service sends
	asked map[*sender]bool // those that have asked since, and have not got their queue
	since time.Time
}

// share is one queue of them.
type share struct {
	of   *shares
	left bool // to another service
}

func newShares(patience time.Duration) *shares {
	return &shares{patience: patience, asked: make(map[*sender]bool)}
}

// add is called when a sender has its queue.
func (s *shares) add(sd *sender) *share {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.has++
	delete(s.asked, sd)
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

// ask reports whether a sender may ask for its queue, and how many the service will have
// if those that it has asked for already are left to it. After some requests it waits until
// it is known which were refused.
func (s *shares) ask(sd *sender, now time.Time) (has int, may bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.since) >= s.patience {
		clear(s.asked)
		s.since = now
	}
	if s.asked[sd] || len(s.asked) == maxAsks || now.Sub(s.since) > s.patience/3 {
		return 0, false
	}
	has = s.has + len(s.asked)
	s.asked[sd] = true
	return has, true
}

// offer calls leave when another service is to have the queue of a consumer. The
// function that it returns is called before the consumer is closed.
func (sd *sender) offer(consumer broker.Consumer, leave func()) (done func()) {
	if !sd.leftAt.IsZero() { // nobody has taken it
		sd.leftAt, sd.keepUntil = time.Time{}, time.Now().Add(keepTime)
	}
	sh := sd.s.shares.add(sd)
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
	if !sd.s.shares.asking.TryLock() {
		return false
	}
	defer sd.s.shares.asking.Unlock()
	has, may := sd.s.shares.ask(sd, time.Now())
	if !may {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, sd.s.shares.patience)
	defer cancel()
	return b.Ask(ctx, sd.queue, has) == nil // the next attempt says what is wrong
}
