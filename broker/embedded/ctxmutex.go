package embedded

import (
	"context"

	"peerlink/broker"
)

// ctxMutex is a mutex whose lock method can be cancelled. It serializes the concurrent calls
// of a method that may block for long, such as Next.
type ctxMutex chan struct{}

func newCtxMutex() ctxMutex { return make(ctxMutex, 1) }

// lock acquires the mutex. It returns the error of ctx if ctx ends first, and
// broker.ErrClosed if closed is closed first.
func (m ctxMutex) lock(ctx context.Context, closed <-chan struct{}) error {
	select {
	case m <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-closed:
		return broker.ErrClosed
	}
}

func (m ctxMutex) unlock() { <-m }
