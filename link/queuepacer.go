package link

import (
	"context"
	"math/rand/v2"
	"peerlink/internal/wait"
	"sync"
	"time"
)

// queuePacer paces how the service takes queues to send from, so that others which
// serve the same node, and start at the same time, get about as many. They need
// not know of each other: each takes its first queue at once, and the more queues
// it has, the longer it waits before it takes another. Who comes later asks for some, see [rebalancer].
type queuePacer struct {
	// spread is the time in which the service would take all queues if it were
	// alone. 0 means at once.
	spread time.Duration
	token  chan struct{} // held by the sender that takes the next one

	mu      sync.Mutex
	senders int       // those that want a queue
	held    int       // those that have one, or try to
	since   time.Time // when the first of these was taken
}

func newQueuePacer(spread time.Duration) *queuePacer {
	return &queuePacer{spread: spread, token: make(chan struct{}, 1)}
}

// addSender counts one more sender. The function that it returns is called when the sender ends.
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

// acquire waits until the service may take one more queue. It must be given back.
func (c *queuePacer) acquire(ctx context.Context) (giveBack func(), err error) {
	if c.spread > 0 {
		// All start in the same order; they should not ask for the same queues.
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

// nextAllowed returns when one more queue may be taken: the pauses grow evenly, which
// evens out that one service has started a little before the other.
func (c *queuePacer) nextAllowed() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == 0 {
		return time.Time{}
	}
	part := float64(c.held) / float64(max(c.senders, c.held))
	return c.since.Add(time.Duration(part * part * float64(c.spread)))
}

// standbyPause is the time until the next look at a queue that another process
// uses. It varies, so that those that stand by get about as many of its queues
// when that one ends.
func (s *Service) standbyPause() time.Duration {
	p := s.cfg.StandbyInterval
	return p/2 + rand.N(p)
}
