package link

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A service that is alone acquires its first queue immediately, half of its queues within a
// quarter of the spread, and all of them within the spread. After it has released all of
// them, it acquires the next one immediately again. With a spread of 0, it never waits.
func TestQueuePacer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const queues, spread = 10, time.Second
		p := newQueuePacer(spread)
		for round := range 2 {
			start := time.Now()
			taken := make(chan time.Duration, queues)
			end := make(chan struct{})
			for range queues {
				go func() {
					defer p.addSender()()
					release, err := p.acquire(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					defer release()
					taken <- time.Since(start)
					<-end
				}()
			}
			for n := range queues {
				at, due := <-taken, spread*time.Duration(n*n)/queues/queues
				if slack := spread / 20; at < due || at > due+slack {
					t.Errorf("round %d: queue %d was acquired after %v, want %v", round, n, at, due)
				}
			}
			close(end)
			synctest.Wait()
			time.Sleep(time.Minute)
		}

		start := time.Now()
		unpaced := newQueuePacer(0)
		for range queues {
			if _, err := unpaced.acquire(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("with a spread of 0, acquiring all queues took %v, want 0", took)
		}
	})
}

// acquire returns an error when its context ends, and then lets other senders wait.
func TestQueuePacerContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newQueuePacer(time.Hour)
		defer p.addSender()()
		if _, err := p.acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		for range 2 {
			if _, err := p.acquire(ctx); err == nil {
				t.Error("a second queue was acquired within 10 minutes, with a spread of 1 hour")
			}
		}
		if p.held != 1 || len(p.token) != 0 {
			t.Errorf("%d queues are held, want 1; the token is taken %d times, want 0", p.held, len(p.token))
		}
	})
}
