package embedded

import (
	"context"

	"peerlink/broker"
)

// turn is a mutex that can be waited for with a context: calls of Next on one
// consumer take turns, and each may wait for long.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take reports the error of ctx, or broker.ErrClosed when closed is.
func (t turn) take(ctx context.Context, closed <-chan struct{}) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-closed:
		return broker.ErrClosed
	}
}

func (t turn) pass() { <-t }
