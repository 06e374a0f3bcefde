package link

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A service that is alone acquires its first queue at once, and all of them within the
// given time; one that has half of them has waited for a quarter of it. With no queue
// left, it starts anew. Without a time, it never waits.
func TestClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const queues, spread = 10, time.Second
		c := newQueuePacer(spread)
		for round := range 2 {
			start := time.Now()
			taken := make(chan time.Duration, queues)
			release := make(chan struct{})
			for range queues {
				go func() {
					defer c.addSender()()
					giveBack, err := c.acquire(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					defer giveBack()
					taken <- time.Since(start)
					<-release
				}()
			}
			for n := range queues {
				at, due := <-taken, spread*time.Duration(n*n)/queues/queues
				if slack := spread / 20; at < due || at > due+slack {
					t.Errorf("round %d: queue %d was taken after %v, want %v", round, n, at, due)
				}
			}
			close(release)
			synctest.Wait()
			time.Sleep(time.Minute)
		}

		start := time.Now()
		at := newQueuePacer(0)
		for range queues {
			if _, err := at.acquire(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("without a time it takes %v", took)
		}
	})
}

// A sender that waits for a queue when the service ends stops waiting, and does not
// delay the end.
func TestClaimsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newQueuePacer(time.Hour)
		defer c.addSender()()
		if _, err := c.acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		for range 2 {
			if _, err := c.acquire(ctx); err == nil {
				t.Error("a second queue within ten minutes of an hour")
			}
		}
		if c.held != 1 || len(c.token) != 0 {
			t.Errorf("%d queues are held, and %d wait", c.held, len(c.token))
		}
	})
}
