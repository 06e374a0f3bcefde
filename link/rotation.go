package link

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"peerlink/stomp"
)

// A peer may take fewer connections at once than there are queues that lead to it.
// It refuses the others. Then the queues take turns: one that was refused waits
// until a connection to the peer ends, and asks the oldest to end if that has
// lasted for a turn.

// errTimeSliceOver is why a connection ends for another queue of the same peer.
var errTimeSliceOver = errors.New("another queue of the peer has its turn")

// connRotation are those of one peer's queues.
type connRotation struct {
	mu       sync.Mutex
	sessions map[*session]func() // what ends the session
	freed    chan struct{}       // receives when a connection has ended
}

func newConnRotation() *connRotation {
	return &connRotation{sessions: make(map[*session]func()), freed: make(chan struct{})}
}

// add notes that a session is in use. The caller calls ended when it is not.
func (t *connRotation) add(se *session, end func()) (ended func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sessions[se] = end
	return func() {
		t.mu.Lock()
		delete(t.sessions, se)
		t.mu.Unlock()
		select {
		case t.freed <- struct{}{}: // one of those who wait
		default:
		}
	}
}

// endOldest ends the oldest session that is in use, if it has lasted for so long. It
// reports whether there is one at all. Otherwise the connections that the peer has
// are abandoned ones, or another process's, and there is nobody to take turns with.
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

// isTooManyConnections reports whether a peer has refused a connection for having as many as
// it takes from one peer. There is no code for that, but our own nodes and the
// reference implementation say it in these words.
func isTooManyConnections(err error) bool {
	refused := new(stomp.ServerError)
	return errors.As(err, &refused) && strings.Contains(strings.ToLower(refused.Message), "too many connections")
}

// rotationPause is how long a queue waits for its turn when no connection of this
// process ends: about as long as a turn.
func (s *Service) rotationPause() time.Duration {
	return s.cfg.ConnTimeSlice/2 + rand.N(s.cfg.ConnTimeSlice)
}
