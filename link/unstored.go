package link

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"peerlink/broker"
)

// The messages from one peer, on all its connections, that were handed to the broker and
// are not stored yet are bounded. A broker stores the messages from all peers in order:
// without a bound, the messages from a peer that floods the node would delay those from
// the other peers by seconds.
const (
	// maxUnstored is the maximum number of bytes: 4 MiB, or 2,048 small messages. With
	// less, a single peer could not use the whole capacity of a broker that confirms
	// slowly.
	maxUnstored = 4 << 20
	// sharedFactor divides maxUnstored while other peers are active, into 256 KiB, or 128
	// small messages.
	sharedFactor = 16
	// maxUnstoredQuotas is the maximum for a broker that implements [broker.Quotas],
	// which stores many messages at once: 8 MiB, or 4,096 small messages, whether other
	// peers are active or not.
	maxUnstoredQuotas = 8 << 20
	// minUnstored is the minimum number of bytes that a message counts as.
	minUnstored = 2 << 10
	// activeFor is how long a peer counts as active after it has sent a message.
	activeFor = 2 * time.Second
)

// unstoredLimits gives each peer its [unstoredLimiter].
type unstoredLimits struct {
	maxBytes int64 // of each peer
	factor   int64 // by which the size of a message is multiplied while other peers are active
	activity peerActivity
}

// newUnstoredLimits returns the limits for a broker.
func newUnstoredLimits(b broker.Broker) *unstoredLimits {
	if _, ok := b.(broker.Quotas); ok {
		return &unstoredLimits{maxBytes: maxUnstoredQuotas, factor: 1}
	}
	return &unstoredLimits{maxBytes: maxUnstored, factor: sharedFactor}
}

func (l *unstoredLimits) limiter(peerID string) *unstoredLimiter {
	return &unstoredLimiter{l, peerID, semaphore.NewWeighted(l.maxBytes)}
}

// unstoredLimiter bounds the messages of one peer that the broker has not stored yet.
// Connections that wait for capacity are served in order.
type unstoredLimiter struct {
	*unstoredLimits
	peerID   string
	capacity *semaphore.Weighted
}

// acquire waits until a message may be handed to the broker, or ctx is done. Unless it returns
// an error, the caller must release the returned capacity when the message is stored.
func (l *unstoredLimiter) acquire(ctx context.Context, body []byte) (acquired int64, err error) {
	acquired = max(int64(len(body)), minUnstored)
	if othersActive := l.activity.record(l.peerID, time.Now()); othersActive {
		acquired *= l.factor
	}
	acquired = min(acquired, l.maxBytes)
	if l.capacity.TryAcquire(acquired) {
		return acquired, nil
	}
	return acquired, l.capacity.Acquire(ctx, acquired)
}

func (l *unstoredLimiter) release(acquired int64) { l.capacity.Release(acquired) }

// peerActivity records which two peers have sent messages last.
type peerActivity struct {
	mu               sync.Mutex
	latest, previous activePeer
}

type activePeer struct {
	id string
	at time.Time
}

// record records that a peer has sent a message, and reports whether another peer is
// active.
func (a *peerActivity) record(id string, now time.Time) (othersActive bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.latest.id != id {
		a.previous = a.latest
	}
	a.latest = activePeer{id, now}
	return now.Sub(a.previous.at) < activeFor
}
