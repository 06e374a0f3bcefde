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
	// keepTime is how long a service refuses requests for a queue that it has yielded, and
	// then acquired again because no other service had: the one that has requested it may
	// be unable to reach the peer.
	keepTime = 10 * time.Minute
)

// rebalancer counts the queues that a service holds and requests.
type rebalancer struct {
	roundTime time.Duration // length of a round, see beginRequest; also limits the sending of one request
	requestMu sync.Mutex    // held while a request is sent, so that requests arrive in order

	mu        sync.Mutex
	held      int              // queues from which the service sends
	requested map[*sender]bool // senders that have requested their queue in this round, and do not have it
	since     time.Time        // the beginning of the round, see beginRequest
}

// heldQueue is a queue from which the service sends.
type heldQueue struct {
	owner   *rebalancer
	counted bool // in owner.held; false once the queue has been yielded to another service, or released
}

func newRebalancer(roundTime time.Duration) *rebalancer {
	return &rebalancer{roundTime: roundTime, requested: make(map[*sender]bool)}
}

// addHeld counts the queue that a sender has acquired. The caller calls release of the
// result when the service does not send from the queue any more.
func (r *rebalancer) addHeld(sd *sender) *heldQueue {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held++
	delete(r.requested, sd)
	return &heldQueue{owner: r, counted: true}
}

// tryYield decides whether to yield the queue to a service that has requested it and has
// requesterHeld queues. If so, tryYield returns true, and the queue does not count as
// held any more.
func (q *heldQueue) tryYield(requesterHeld int) bool {
	q.owner.mu.Lock()
	defer q.owner.mu.Unlock()
	if !q.counted || q.owner.held < requesterHeld+2 {
		return false
	}
	q.owner.held--
	q.counted = false
	return true
}

// release ends the counting of the queue as held, unless tryYield has ended it.
func (q *heldQueue) release() {
	q.owner.mu.Lock()
	defer q.owner.mu.Unlock()
	if q.counted {
		q.owner.held--
		q.counted = false
	}
}

// beginRequest records that a sender requests its queue, if it may at present. It returns
// how many queues the service has if all earlier requests of the round are granted.
// Requests are sent in rounds: only during the first third of a round, and only while fewer
// than maxRequests are outstanding. At the end of the round, outstanding requests count as
// denied.
func (r *rebalancer) beginRequest(sd *sender, now time.Time) (held int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.since) >= r.roundTime {
		clear(r.requested)
		r.since = now
	}
	if r.requested[sd] || len(r.requested) == maxRequests || now.Sub(r.since) > r.roundTime/3 {
		return 0, false
	}
	held = r.held + len(r.requested)
	r.requested[sd] = true
	return held, true
}

// watchQueueRequests counts the queue as held, and watches for another service that
// requests it. When the queue is yielded to that service, it calls onYield. The caller
// calls done before it closes the consumer.
func (sd *sender) watchQueueRequests(consumer broker.Consumer, onYield func()) (done func()) {
	if sd.yielded { // and no other service has acquired the queue
		sd.yielded, sd.keepUntil = false, time.Now().Add(keepTime)
	}
	held := sd.s.rebalancer.addHeld(sd)
	ended := make(chan struct{})
	yielder, ok := consumer.(broker.QueueYielder)
	if !ok {
		return held.release
	}
	keepUntil := sd.keepUntil
	go func() {
		for {
			select {
			case requesterHeld := <-yielder.QueueRequests():
				// A connection may last for longer than keepTime.
				if !time.Now().Before(keepUntil) && held.tryYield(requesterHeld) {
					sd.log.Info("another process of the node has fewer queues, and gets this one")
					onYield()
				}
			case <-ended:
				return
			}
		}
	}()
	return func() { close(ended); held.release() }
}

// requestQueue requests the queue from the service that sends from it, if beginRequest
// permits. It reports whether the request was sent.
func (sd *sender) requestQueue(ctx context.Context) bool {
	b, ok := sd.s.cfg.Broker.(broker.QueueRequester)
	if !ok {
		return false
	}
	if !sd.s.rebalancer.requestMu.TryLock() {
		return false
	}
	defer sd.s.rebalancer.requestMu.Unlock()
	held, ok := sd.s.rebalancer.beginRequest(sd, time.Now())
	if !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, sd.s.rebalancer.roundTime)
	defer cancel()
	return b.RequestQueue(ctx, sd.queue, held) == nil // a persistent fault of the broker is reported by the next attempt to acquire the queue
}

// A peer may accept fewer connections at once than there are queues that lead to it, and
// reject the others. Then the queues share the connections by time slices: a sender
// whose connection was rejected waits until a connection of another queue ends, and ends
// the oldest of these connections if that has lasted for a time slice.

// errTimeSliceOver is the cause when a connection ends in favour of another queue of
// the same peer.
var errTimeSliceOver = errors.New("another queue of the peer has its turn")

// connTurns lets the queues of a peer take turns if it permits fewer connections than there are
// queues. It holds the sessions of one peer's queues.
type connTurns struct {
	mu       sync.Mutex
	sessions map[*session]func() // the function ends the session
	freed    chan struct{}       // unbuffered: one sender that waits receives a value when a session ends
}

func newConnTurns() *connTurns {
	return &connTurns{sessions: make(map[*session]func()), freed: make(chan struct{})}
}

// add records that a session is in use, and how to end it. The caller calls remove when
// the session has ended.
func (r *connTurns) add(se *session, end func()) (remove func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions[se] = end
	return func() {
		r.mu.Lock()
		delete(r.sessions, se)
		r.mu.Unlock()
		select {
		case r.freed <- struct{}{}:
		default:
		}
	}
}

// endOldest ends the oldest session that is in use, if it has lasted for a time slice.
// It reports whether any session is in use. If no session is, the connections that the
// peer counts are abandoned or belong to another process, and there is nothing to share.
func (r *connTurns) endOldest(timeSlice time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	var oldest *session
	for se := range r.sessions {
		if oldest == nil || se.since.Before(oldest.since) {
			oldest = se
		}
	}
	if oldest != nil && time.Since(oldest.since) >= timeSlice {
		r.sessions[oldest]()
	}
	return oldest != nil
}

// turnPause returns the longest time for which a sender waits until another queue
// ends its connection, about a time slice. Then the sender tries to connect again.
func (s *shared) turnPause() time.Duration {
	return s.cfg.ConnTimeSlice/2 + rand.N(s.cfg.ConnTimeSlice)
}
