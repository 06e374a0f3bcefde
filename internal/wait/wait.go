// Package wait has ways to wait for a change, and to sleep unless a context is done earlier.
package wait

import (
	"context"
	"sync"
	"time"
)

// Signal wakes one goroutine, which receives from it. A notification without a waiting
// goroutine is kept for the next receive: a goroutine that checks its condition after
// every receive misses no change. Several notifications that were not received yet count
// as one.
type Signal chan struct{}

// NewSignal returns a Signal without a notification.
func NewSignal() Signal { return make(Signal, 1) }

// Notify notifies the signal. It never blocks.
func (s Signal) Notify() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// Broadcast wakes all goroutines that wait for a change. The zero value can be used.
type Broadcast struct {
	mu   sync.Mutex
	next chan struct{}
}

// Next returns a channel that is closed by the next call of Notify. A goroutine that
// checks its condition after the call of Next, and then receives, misses no change.
func (b *Broadcast) Next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = make(chan struct{})
	}
	return b.next
}

// Notify wakes the goroutines that wait.
func (b *Broadcast) Notify() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}

// Sleep waits for d. It returns the error of ctx as soon as ctx is done, even if d is not
// positive.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
