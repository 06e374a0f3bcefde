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
// communicate for this: each service acquires its first queue immediately, and the more
// queues it has, the longer it waits before it acquires another. A service that starts
// later requests queues, see [rebalancer].
type queuePacer struct {
	// spread is the time in which a service that is alone acquires all queues. 0 means
	// immediately.
	spread time.Duration
	token  chan struct{} // held by the sender that acquires the next queue

	mu      sync.Mutex
	senders int       // all senders of the service
	held    int       // senders that have acquired their queue, or are trying to
	since   time.Time // when held last rose from 0 to 1
}

func newQueuePacer(spread time.Duration) *queuePacer {
	return &queuePacer{spread: spread, token: make(chan struct{}, 1)}
}

// addSender counts one more sender. The caller calls remove when the sender ends.
func (p *queuePacer) addSender() (remove func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.senders++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.senders--
	}
}

// acquire waits until the service may acquire one more queue. The caller calls release
// when its sender does not use the queue any more.
func (p *queuePacer) acquire(ctx context.Context) (release func(), err error) {
	if p.spread > 0 {
		// Each service starts its senders in the same order. The random pause changes the
		// order in which they try their queues, so that services that start together do
		// not all try the same ones.
		if err := wait.Sleep(ctx, rand.N(p.spread/32+1)); err != nil {
			return nil, err
		}
	}
	select {
	case p.token <- struct{}{}:
		defer func() { <-p.token }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := wait.Sleep(ctx, time.Until(p.nextAllowed())); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held == 0 {
		p.since = time.Now()
	}
	p.held++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.held--
	}, nil
}

// nextAllowed returns when one more queue may be acquired. The pauses grow linearly,
// which compensates for small differences between the start times of services.
func (p *queuePacer) nextAllowed() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held == 0 {
		return time.Time{}
	}
	part := float64(p.held) / float64(max(p.senders, p.held))
	return p.since.Add(time.Duration(part * part * float64(p.spread)))
}

// standbyPause returns the time until the next attempt to acquire a queue that another
// process uses: a random time from half to one and a half times StandbyInterval, so that
// the processes that stand by get about as many queues each when the other process ends.
func (s *shared) standbyPause() time.Duration {
	p := s.cfg.StandbyInterval
	return p/2 + rand.N(p)
}
