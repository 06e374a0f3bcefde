package link

import (
	"context"
	"testing"
	"time"
)

// A peer that sends alone may have many messages that are not stored yet. As soon as
// another one sends too, each message counts for more, and the capacity acquired before is
// released as it was acquired.
func TestUnstoredMessagesBesideOthers(t *testing.T) {
	t.Parallel()
	limits := newUnstoredLimits(nil)
	a, b := limits.limiter("a"), limits.limiter("b")
	body := make([]byte, 500)
	full, cancel := context.WithCancel(t.Context())
	cancel() // acquire does not wait
	fill := func(l *unstoredLimiter) (acquired []int64) {
		t.Helper()
		for {
			n, err := l.acquire(full, body)
			if err != nil {
				return acquired
			}
			acquired = append(acquired, n)
		}
	}
	release := func(l *unstoredLimiter, acquired []int64) {
		for _, n := range acquired {
			l.release(n)
		}
	}
	alone := fill(a)
	if got, want := len(alone), maxUnstored/minUnstored; got != want {
		t.Errorf("alone: %d messages, want %d", got, want)
	}
	release(a, alone)
	const most = maxUnstored / minUnstored / sharedFactor
	if got := len(fill(b)); got != most {
		t.Errorf("a second peer: %d messages, want %d", got, most)
	}
	beside := fill(a)
	if got := len(beside); got != most {
		t.Errorf("beside the second peer: %d messages, want %d", got, most)
	}
	release(a, beside)
	if got := len(fill(a)); got != most {
		t.Errorf("after the first peer has released its capacity: %d messages, want %d", got, most)
	}
	if got, err := a.acquire(full, make([]byte, maxUnstored+1)); err == nil {
		t.Errorf("a full limiter has given %d for a large message", got)
	}
}

// Another peer is active for a time after its last message, however many messages come
// from one peer, and whichever of several others it is.
func TestPeerActivity(t *testing.T) {
	t.Parallel()
	var a peerActivity
	start := time.Now()
	for _, step := range []struct {
		id     string
		after  time.Duration
		shared bool
	}{
		{"a", 0, false},
		{"a", 1, false},
		{"b", 2, true},
		{"a", 3, true},
		{"a", 1 + activeFor, true},
		{"a", 2 + activeFor, false},
		{"c", 3 + activeFor, true},
		{"b", 4 + activeFor, true},
		{"b", 3 + 2*activeFor, false},
	} {
		if got := a.record(step.id, start.Add(step.after)); got != step.shared {
			t.Errorf("%s after %v: shared is %v, want %v", step.id, step.after, got, step.shared)
		}
	}
}
