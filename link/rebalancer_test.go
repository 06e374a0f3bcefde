package link

import (
	"testing"
	"time"
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
