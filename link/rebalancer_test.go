package link

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/broker"
)

// A service that has no queues gets as many as the other keeps, or one less, although
// it requests as many at once as allowed; then neither yields any more. A refused
// request counts for some time, so that no more queues are yielded than are missing.
func TestShares(t *testing.T) {
	const queues = 13
	now := time.Now()
	old, young := newRebalancer(time.Second), newRebalancer(time.Second)
	var held []*heldQueue
	for range queues {
		held = append(held, old.addHeld(new(sender)))
	}
	senders := make([]*sender, queues)
	for i := range senders {
		senders[i] = new(sender)
	}
	for range 5 {
		var got []*sender
		asked := 0
		for i, sd := range senders {
			has, may := young.beginRequest(sd, now)
			if !may {
				continue
			}
			asked++
			if held[i].tryYield(has) {
				held[i].release()
				got = append(got, sd)
			}
		}
		if asked > maxRequests {
			t.Errorf("it asks for %d queues at a time, want %d at most", asked, maxRequests)
		}
		if _, may := young.beginRequest(senders[0], now); may && asked > 0 {
			t.Error("it asks twice for the same queue")
		}
		for _, sd := range got {
			young.addHeld(sd)
		}
		now = now.Add(time.Second)
	}
	if old.held != 7 || young.held != 6 {
		t.Errorf("they have %d and %d queues, want 7 and 6", old.held, young.held)
	}
}

// A queue that a service has requested and got counts once. If it counted as requested, too,
// the service would seem to have more queues than it has, and be refused those it lacks.
func TestGrantedRequestCountsOnce(t *testing.T) {
	t.Parallel()
	r, now := newRebalancer(time.Minute), time.Now()
	first, second := new(sender), new(sender)
	if has, may := r.beginRequest(first, now); has != 0 || !may {
		t.Fatalf("the first request says %d, and may be sent: %v", has, may)
	}
	r.addHeld(first)
	if has, may := r.beginRequest(second, now); has != 1 || !may {
		t.Errorf("the second request says %d, and may be sent: %v, want 1", has, may)
	}
	if has, may := r.beginRequest(new(sender), now); has != 2 || !may {
		t.Errorf("the third request says %d, and may be sent: %v, want 2", has, may)
	}
}

// A request that arrives when the service has just released the queue does not reduce the
// number of its queues a second time: for ever, it would seem to have fewer than it has.
func TestRequestAfterRelease(t *testing.T) {
	r := newRebalancer(time.Second)
	for range 4 {
		r.addHeld(new(sender))
	}
	q := r.addHeld(new(sender))
	q.release()
	if q.tryYield(0) {
		t.Error("a released queue is yielded")
	}
	q.release()
	if r.held != 4 {
		t.Errorf("%d queues are held, want 4", r.held)
	}
}

// requestedConsumer is the consumer of a queue that other services request.
type requestedConsumer struct {
	broker.Consumer
	requests chan int
}

func (c requestedConsumer) QueueRequests() <-chan int { return c.requests }

// A service that has yielded a queue which no other service has taken keeps it for keepTime:
// the other one may be unable to reach the peer, and the queue would be sent from by neither.
// Then it yields the queue again, also if the same connection is still in use. A queue that
// another service has taken meanwhile is yielded as soon as it is requested. After yielding it, the
// service leaves the other one time to take it, whatever happens on the link meanwhile.
func TestYieldedQueueIsKept(t *testing.T) {
	for name, test := range map[string]struct {
		taken bool
		want  time.Duration // how long the queue is kept
	}{"no other takes it": {false, keepTime}, "another takes it": {true, 0}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newShared(Config{StandbyInterval: 3 * time.Second})
				sd := s.newSender(s.peers.getOrAdd("1234abcd"), "queue")
				for range 2 {
					defer s.rebalancer.addHeld(new(sender)).release() // so that one with no queue gets this one
				}
				pause := func(err error) retryPause { return sd.pauseAfter(t.Context(), s.newRetries(), false, err) }
				for round := range 2 {
					if p := pause(errYielded); p.time != 2*s.cfg.StandbyInterval || !p.uninterrupted {
						t.Errorf("round %d: after yielding the queue, the pause is %+v, want twice %v, uninterrupted", round, p, s.cfg.StandbyInterval)
					}
					if test.taken {
						pause(&brokerError{fmt.Errorf("queue: %w", broker.ErrInUse)})
					}
					requests, yielded := make(chan int), make(chan struct{})
					done := sd.watchQueueRequests(requestedConsumer{requests: requests}, func() { close(yielded) })
					start := time.Now()
					for kept := true; kept; {
						requests <- 0
						synctest.Wait()
						select {
						case <-yielded:
							kept = false
						case <-time.After(time.Second):
						}
					}
					if took := time.Since(start); took != test.want {
						t.Errorf("round %d: the queue is yielded after %v, want %v", round, took, test.want)
					}
					done()
				}
			})
		})
	}
}
