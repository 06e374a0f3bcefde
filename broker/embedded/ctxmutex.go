package embedded

import (
	"context"

	"peerlink/broker"
)

// ctxMutex is a mutex for which a goroutine can wait until a context is done. It is used where
// another goroutine may hold the mutex for long, as Next does.
type ctxMutex chan struct{}

func newCtxMutex() ctxMutex { return make(ctxMutex, 1) }

// lock acquires the mutex. It returns the error of ctx if ctx is done first, and
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
