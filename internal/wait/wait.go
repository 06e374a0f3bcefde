// Package wait has ways to wait: for a change, and for a time that a context may cut short.
package wait

import (
	"context"
	"time"
)

// Signal wakes one goroutine, which receives from it. A signal that is given while no
// goroutine waits is kept for the next receive: a goroutine that looks after every
// receive misses no change. Several signals that were not received yet count as one.
type Signal chan struct{}

// NewSignal returns a Signal that has not been given.
func NewSignal() Signal { return make(Signal, 1) }

// Notify gives the signal. It never blocks.
func (s Signal) Notify() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// Sleep waits for d. It returns the error of ctx as soon as ctx is done, also when d is
// not positive.
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
