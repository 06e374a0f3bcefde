package link

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"peerlink/broker"
)

// Services of the same node share its queues. A service that was started later, or
// restarted, requests queues from services that have more: each of its senders that
// stands by sends a request to the service that sends from the queue, which yields the
// queue if it has at least two more queues.

// errYielded is the cause when a sender yields its queue to another service.
var errYielded = errors.New("another process of the node has fewer queues, and gets this one")

const (
	// maxRequests is the maximum number of outstanding requests of a service.
	maxRequests = 8
	// keepTime is how long a service keeps a queue that it has yielded and that no
	// other service has taken: the other service may be unable to reach the peer.
	keepTime = 10 * time.Minute
)

// rebalancer counts the queues that a service holds and requests.
type rebalancer struct {
	patience  time.Duration // after which outstanding requests count as refused
	requestMu sync.Mutex    // held while a request is sent, so that requests arrive in order

	mu        sync.Mutex
	held      int              // queues from which the service sends
	requested map[*sender]bool // senders that have requested their queue after since, and do not have it
	since     time.Time
}

// heldQueue is a queue from which the service sends.
type heldQueue struct {
	owner   *rebalancer
	yielded bool // to another service
}

func newRebalancer(patience time.Duration) *rebalancer {
	return &rebalancer{patience: patience, requested: make(map[*sender]bool)}
}

// add is called when a sender has acquired its queue.
func (s *rebalancer) add(sd *sender) *heldQueue {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held++
	delete(s.requested, sd)
	return &heldQueue{owner: s}
}

// tryYield reports whether the queue must be yielded to a service that has this number
// of queues. If so, the queue does not count as held any more.
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

// mayRequest reports whether a sender may request its queue, and returns how many
// queues the service will have if all outstanding requests are granted. Requests are
// sent in rounds: after some requests, no more are sent until it is known which were
// refused.
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

// serveRequests calls leave when the queue of a consumer is yielded to another service.
// The caller calls done before it closes the consumer.
func (sd *sender) serveRequests(consumer broker.Consumer, leave func()) (done func()) {
	if !sd.yieldedAt.IsZero() { // no other service has taken the queue
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

// requestQueue requests the queue from the service that sends from it, if mayRequest
// allows that. It reports whether the request was sent.
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
	return b.RequestQueue(ctx, sd.queue, has) == nil // the next attempt reports the error
}

// A peer may accept fewer connections at once than there are queues that lead to it,
// and refuse the others. Then the queues share the connections by time slices: the
// sender of a queue that was refused waits until a connection to the peer ends, and
// ends the oldest connection if that has lasted for a time slice.

// errTimeSliceOver is the cause when a connection ends in favour of another queue of
// the same peer.
var errTimeSliceOver = errors.New("another queue of the peer has its turn")

// connRotation holds the sessions of one peer's queues.
type connRotation struct {
	mu       sync.Mutex
	sessions map[*session]func() // the function ends the session
	freed    chan struct{}       // receives a value when a session has ended
}

func newConnRotation() *connRotation {
	return &connRotation{sessions: make(map[*session]func()), freed: make(chan struct{})}
}

// add records that a session is in use. The caller calls ended when it is not any more.
func (t *connRotation) add(se *session, end func()) (ended func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sessions[se] = end
	return func() {
		t.mu.Lock()
		delete(t.sessions, se)
		t.mu.Unlock()
		select {
		case t.freed <- struct{}{}: // wakes one waiting sender
		default:
		}
	}
}

// endOldest ends the oldest session that is in use, if it has lasted for a time slice.
// It reports whether any session is in use. If none is, the connections that the peer
// counts are abandoned or belong to another process, and there is nothing to share.
func (t *connRotation) endOldest(turn time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	var oldest *session
	for se := range t.sessions {
		if oldest == nil || se.since.Before(oldest.since) {
			oldest = se
		}
	}
	if oldest != nil && time.Since(oldest.since) >= turn {
		t.sessions[oldest]()
	}
	return oldest != nil
}

// rotationPause returns how long a queue waits for a connection when none of this
// process ends: about a time slice.
func (s *shared) rotationPause() time.Duration {
	return s.cfg.ConnTimeSlice/2 + rand.N(s.cfg.ConnTimeSlice)
}
