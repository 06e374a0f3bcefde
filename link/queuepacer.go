package link

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"peerlink/internal/wait"
)

// queuePacer paces how the service acquires queues to send from, so that services of
// the same node that start at the same time get about as many queues each. They do not
// communicate for this: each acquires its first queue at once, and the more queues it
// has, the longer it waits before it acquires another. A service that starts later
// requests queues, see [rebalancer].
type queuePacer struct {
	// spread is the time in which a service that is alone acquires all queues. 0 means
	// at once.
	spread time.Duration
	token  chan struct{} // held by the sender that acquires the next queue

	mu      sync.Mutex
	senders int       // all senders of the service
	held    int       // senders that have a queue, or try to
	since   time.Time // when the first of these acquired its queue
}

func newQueuePacer(spread time.Duration) *queuePacer {
	return &queuePacer{spread: spread, token: make(chan struct{}, 1)}
}

// addSender counts one more sender. The caller calls leave when the sender ends.
func (c *queuePacer) addSender() (leave func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.senders++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.senders--
	}
}

// acquire waits until the service may acquire one more queue. The caller calls giveBack
// when its sender does not use the queue any more.
func (c *queuePacer) acquire(ctx context.Context) (giveBack func(), err error) {
	if c.spread > 0 {
		// All services start in the same order, and must not try the same queues.
		if err := wait.Sleep(ctx, rand.N(c.spread/32+1)); err != nil {
			return nil, err
		}
	}
	select {
	case c.token <- struct{}{}:
		defer func() { <-c.token }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := wait.Sleep(ctx, time.Until(c.nextAllowed())); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == 0 {
		c.since = time.Now()
	}
	c.held++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.held--
	}, nil
}

// nextAllowed returns when one more queue may be acquired. The pauses grow evenly,
// which compensates for small differences between the start times of services.
func (c *queuePacer) nextAllowed() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == 0 {
		return time.Time{}
	}
	part := float64(c.held) / float64(max(c.senders, c.held))
	return c.since.Add(time.Duration(part * part * float64(c.spread)))
}

// standbyPause returns the time until the next attempt to acquire a queue that another
// process uses. It is random, so that the processes that stand by get about as many
// queues each when that process ends.
func (s *shared) standbyPause() time.Duration {
	p := s.cfg.StandbyInterval
	return p/2 + rand.N(p)
}
