package link

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

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
