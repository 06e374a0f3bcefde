package link

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/broker"
)

// awayBroker is a broker that does not answer until it is back.
type awayBroker struct {
	broker.Broker
	back chan struct{}
	jobs atomic.Int32
}

func (b *awayBroker) Bind(ctx context.Context, _ broker.PeerBinding) error {
	b.jobs.Add(1)
	select {
	case <-b.back:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A broker that does not answer gets a bounded number of bind jobs at once. A service
// that starts waits for it for a bounded time. When the broker is back, every bind job
// is run, and its result is returned by the next call. The end of the service ends the
// jobs that wait.
func TestBindJobsAreBounded(t *testing.T) {
	for name, back := range map[string]bool{"it is back": true, "the service ends": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const peers = 3 * maxBindJobs
				b := &awayBroker{back: make(chan struct{})}
				r := newReconciler(newShared(Config{Broker: b}))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var all []*peer
				for n := range peers {
					p := r.peers.getOrAdd(fmt.Sprint(n))
					p.missing = 1 // no directory is read
					all = append(all, p)
					for range 2 {
						if err := r.bind(ctx, p, broker.PeerBinding{PeerID: p.id}); !errors.Is(err, errBindPending) {
							t.Fatalf("got %v, want errBindPending", err)
						}
					}
				}
				start := time.Now()
				r.awaitBindJobs(ctx, ctx)
				if waited := time.Since(start); waited != startupBindTime {
					t.Errorf("waited %v, want %v", waited, startupBindTime)
				}
				if n := b.jobs.Load(); n != maxBindJobs {
					t.Errorf("the broker has %d bind jobs at once, want %d", n, maxBindJobs)
				}
				if !back {
					cancel()
					r.wg.Wait()
					return
				}
				close(b.back)
				r.awaitBindJobs(ctx, ctx)
				for _, p := range all {
					if err := r.bind(ctx, p, broker.PeerBinding{PeerID: p.id}); err != nil {
						t.Errorf("peer %s: %v", p.id, err)
					}
				}
				if n := b.jobs.Load(); n != peers {
					t.Errorf("the broker has had %d bind jobs, want %d", n, peers)
				}
			})
		})
	}
}

// A service is not healthy before it serves.
func TestNotHealthyBeforeServing(t *testing.T) {
	t.Parallel()
	if err := New(Config{}).Health(); !errors.Is(err, errNotServing) {
		t.Errorf("got %v, want %v", err, errNotServing)
	}
}
