package embedded

import (
	"context"

	"peerlink/broker"
)

// ctxMutex is a mutex that can be waited for with a context: calls of Next on one
// consumer take turns, and each may wait for long.
type ctxMutex chan struct{}

func newCtxMutex() ctxMutex { return make(ctxMutex, 1) }

// lock reports the error of ctx, or broker.ErrClosed when closed is.
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
