package embedded

import (
	"context"

	"peerlink/broker"
)

// ctxMutex is a mutex whose lock operation accepts a context: concurrent calls of Next on
// one consumer are serialized, and each may block for long.
type ctxMutex chan struct{}

func newCtxMutex() ctxMutex { return make(ctxMutex, 1) }

// lock acquires the mutex. It returns the error of ctx, or broker.ErrClosed once closed is
// closed.
func (t ctxMutex) lock(ctx context.Context, closed <-chan struct{}) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-closed:
		return broker.ErrClosed
	}
}

func (t ctxMutex) unlock() { <-t }
