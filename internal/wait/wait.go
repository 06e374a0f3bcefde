// Package wait has functions to wait for a change, and to sleep until a context ends.
package wait

import (
	"context"
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
