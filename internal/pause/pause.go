// Package pause waits for a time that nobody has to wait out.
package pause

import (
	"context"
	"time"
)

// Sleep waits, or returns the error of ctx as soon as that is done: also when there
// is nothing to wait for.
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
