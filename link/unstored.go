package link

import (
	"context"

	"golang.org/x/sync/semaphore"
)

// maxUnstored is how many messages of one peer, from all its connections, may be in the
// broker and not stored yet, and maxUnstoredBytes the maximum total size of their bodies.
// A broker works through the messages of all peers in order: without this bound, the
// messages of a peer that floods the node would delay those of the others by seconds.
const (
	maxUnstored      = 512
	maxUnstoredBytes = 1 << 20
)

// unstoredLimiter bounds the messages of one peer that the broker has not stored yet.
// Connections that wait for capacity are served in order.
type unstoredLimiter struct {
	// capacity is in bytes. A small message counts as minUnstored bytes, which bounds the
	// number of messages.
	capacity *semaphore.Weighted
}

const minUnstored = maxUnstoredBytes / maxUnstored

func newUnstoredLimiter() unstoredLimiter {
	return unstoredLimiter{semaphore.NewWeighted(maxUnstoredBytes)}
}

// acquire waits until a message may be handed to the broker, or ctx is done. It returns
// the capacity that the caller must release when the message is stored.
func (l unstoredLimiter) acquire(ctx context.Context, body []byte) (acquired int64, err error) {
	acquired = min(max(int64(len(body)), minUnstored), maxUnstoredBytes)
	if l.capacity.TryAcquire(acquired) {
		return acquired, nil
	}
	return acquired, l.capacity.Acquire(ctx, acquired)
}

func (l unstoredLimiter) release(acquired int64) { l.capacity.Release(acquired) }
