package wait

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// Sleep lasts as long as requested, and not longer than its context.
func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		for _, c := range []struct {
			sleep, want time.Duration
			err         error
		}{
			{0, 0, nil},
			{-time.Second, 0, nil},
			{2 * time.Second, 2 * time.Second, nil},
			{time.Hour, 3 * time.Second, context.DeadlineExceeded},
			{time.Second, 0, context.DeadlineExceeded},
			{0, 0, context.DeadlineExceeded},
		} {
			began := time.Now()
			if err := Sleep(ctx, c.sleep); !errors.Is(err, c.err) {
				t.Errorf("%v: got %v, want %v", c.sleep, err, c.err)
			}
			if got := time.Since(began); got != c.want {
				t.Errorf("%v: it took %v, want %v", c.sleep, got, c.want)
			}
		}
	})
}
