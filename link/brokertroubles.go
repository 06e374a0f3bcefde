package link

import (
	"fmt"
	"sync"
	"time"
)

// brokerTroubles are the objects in the broker that can not be used at present, and why: the
// queues, by name, that can not be consumed, and the peers, by node ID, whose queues can not
// be bound.
type brokerTroubles struct {
	mu   sync.Mutex
	list map[string]brokerTrouble
}

type brokerTrouble struct {
	err   error
	since time.Time
}

// set records that an object can not be used for the reason err or, if err is nil, that it
// can.
func (t *brokerTroubles) set(object string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		delete(t.list, object)
		return
	}
	if t.list == nil {
		t.list = make(map[string]brokerTrouble)
	}
	since := time.Now()
	if before, ok := t.list[object]; ok {
		since = before.since
	}
	t.list[object] = brokerTrouble{err, since}
}

// lasting returns an error about the trouble that has lasted longest, if it has lasted for
// d, and nil otherwise: a broker that is restarted is no trouble.
func (t *brokerTroubles) lasting(d time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	oldest := brokerTrouble{since: time.Now().Add(-d)}
	for _, b := range t.list {
		if b.since.Before(oldest.since) {
			oldest = b
		}
	}
	switch n := len(t.list); {
	case oldest.err == nil:
		return nil
	case n > 1:
		return fmt.Errorf("%w (and %d more)", oldest.err, n-1)
	}
	return oldest.err
}
