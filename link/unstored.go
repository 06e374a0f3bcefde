package link

import (
	"context"

	"golang.org/x/sync/semaphore"

	"peerlink/broker"
)

// Of the messages of one peer, from all its connections, only so many may be in the broker
// and not stored yet. A broker works through the messages of all peers in order: without a
// bound, the messages of a peer that floods the node would delay those of the others by
// seconds.
const (
	// maxUnstored is the maximum number of bytes: 1 MiB, or 512 small messages.
	maxUnstored = 1 << 20
	// maxUnstoredQuotas is the same for a broker with quotas, which stores many messages at
	// once: 8 MiB, or 4,096 small messages.
	maxUnstoredQuotas = 8 << 20
	// minUnstored is how many bytes a small message counts as.
	minUnstored = 2 << 10
)

// unstoredLimiter bounds the messages of one peer that the broker has not stored yet.
// Connections that wait for capacity are served in order.
type unstoredLimiter struct {
	most     int64 // in bytes
	capacity *semaphore.Weighted
}

func newUnstoredLimiter(most int64) unstoredLimiter {
	return unstoredLimiter{most, semaphore.NewWeighted(most)}
}

// unstoredLimit returns the limit of each peer for a broker, in bytes.
func unstoredLimit(b broker.Broker) int64 {
	if _, ok := b.(broker.Quotas); ok {
		return maxUnstoredQuotas
	}
	return maxUnstored
}

// acquire waits until a message may be handed to the broker, or ctx is done. It returns
// the capacity that the caller must release when the message is stored.
func (l unstoredLimiter) acquire(ctx context.Context, body []byte) (acquired int64, err error) {
	acquired = min(max(int64(len(body)), minUnstored), l.most)
	if l.capacity.TryAcquire(acquired) {
		return acquired, nil
	}
	return acquired, l.capacity.Acquire(ctx, acquired)
}

func (l unstoredLimiter) release(acquired int64) { l.capacity.Release(acquired) }
