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

// errYielded is why a sender leaves its queue to another service.
var errYielded = errors.New("another process of the node has fewer queues, and gets this one")

const (
	// maxRequests is for how many queues a service asks at a time.
	maxRequests = 8
	// keepTime is how long a queue is kept that was left and that nobody has taken: the
	// other service may not be able to reach the peer.
	keepTime = 10 * time.Minute
)

// rebalancer counts the queues that a service has and those that it asks for.
type rebalancer struct {
	patience  time.Duration // after which requests are taken for refused
	requestMu sync.Mutex    // held while a request is sent: they must arrive in order

	mu        sync.Mutex
	held      int              // queues from which the service sends
	requested map[*sender]bool // those that have asked since, and have not got their queue
	since     time.Time
}

// heldQueue is one queue of them.
type heldQueue struct {
	owner   *rebalancer
	yielded bool // to another service
}

func newRebalancer(patience time.Duration) *rebalancer {
	return &rebalancer{patience: patience, requested: make(map[*sender]bool)}
}

// add is called when a sender has its queue.
func (s *rebalancer) add(sd *sender) *heldQueue {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held++
	delete(s.requested, sd)
	return &heldQueue{owner: s}
}

// tryYield reports whether the queue is to be left to a service that has this number of queues.
func (sh *heldQueue) tryYield(has int) bool {
	sh.owner.mu.Lock()
	defer sh.owner.mu.Unlock()
	if sh.yielded || sh.owner.held < has+2 {
		return false
	}
	sh.owner.held--
	sh.yielded = true
	return true
}

// release is called when the service does not send from the queue any more.
func (sh *heldQueue) release() {
	sh.owner.mu.Lock()
	defer sh.owner.mu.Unlock()
	if !sh.yielded {
		sh.owner.held--
	}
}

// mayRequest reports whether a sender may ask for its queue, and how many the service will have
// if those that it has asked for already are left to it. After some requests it waits until
// it is known which were refused.
func (s *rebalancer) mayRequest(sd *sender, now time.Time) (has int, may bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.since) >= s.patience {
		clear(s.requested)
		s.since = now
	}
	if s.requested[sd] || len(s.requested) == maxRequests || now.Sub(s.since) > s.patience/3 {
		return 0, false
	}
	has = s.held + len(s.requested)
	s.requested[sd] = true
	return has, true
}

// serveRequests calls leave when another service is to have the queue of a consumer. The
// function that it returns is called before the consumer is closed.
func (sd *sender) serveRequests(consumer broker.Consumer, leave func()) (done func()) {
	if !sd.yieldedAt.IsZero() { // nobody has taken it
		sd.yieldedAt, sd.keepUntil = time.Time{}, time.Now().Add(keepTime)
	}
	sh := sd.s.rebalancer.add(sd)
	ended := make(chan struct{})
	asked, ok := consumer.(broker.QueueYielder)
	if !ok || time.Now().Before(sd.keepUntil) {
		return sh.release
	}
	go func() {
		for {
			select {
			case has := <-asked.QueueRequests():
				if sh.tryYield(has) {
					sd.log.Info("another process of the node has fewer queues, and gets this one")
					leave()
				}
			case <-ended:
				return
			}
		}
	}()
	return func() { close(ended); sh.release() }
}

// requestQueue asks the service that sends from the queue to leave it, if there is
// reason to. It reports whether it has.
func (sd *sender) requestQueue(ctx context.Context) bool {
	b, ok := sd.s.cfg.Broker.(broker.QueueRequester)
	if !ok {
		return false
	}
	if !sd.s.rebalancer.requestMu.TryLock() {
		return false
	}
	defer sd.s.rebalancer.requestMu.Unlock()
	has, may := sd.s.rebalancer.mayRequest(sd, time.Now())
	if !may {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, sd.s.rebalancer.patience)
	defer cancel()
	return b.RequestQueue(ctx, sd.queue, has) == nil // the next attempt says what is wrong
}
