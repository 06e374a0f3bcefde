package link

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"peerlink/broker"
)

// The messages of one peer, from all its connections, that are in the broker and not
// stored yet are bounded. A broker works through the messages of all peers in order:
// without a bound, the messages of a peer that floods the node would delay those of the
// others by seconds.
const (
	// maxUnstored is the maximum number of bytes: 4 MiB, or 2,048 small messages, which
	// a peer needs to use all of a broker that confirms slowly.
	maxUnstored = 4 << 20
	// sharedFactor divides maxUnstored while other peers are active: 256 KiB, or 128
	// small messages.
	sharedFactor = 16
	// maxUnstoredQuotas is the maximum for a broker with quotas, which stores many
	// messages at once: 8 MiB, or 4,096 small messages, at any time.
	maxUnstoredQuotas = 8 << 20
	// minUnstored is how many bytes a small message counts as.
	minUnstored = 2 << 10
	// activeFor is how long a peer counts as active after it has sent a message.
	activeFor = 2 * time.Second
)

// unstoredLimits gives each peer its [unstoredLimiter].
type unstoredLimits struct {
	most     int64 // in bytes
	factor   int64 // by which messages count more while other peers are active
	activity peerActivity
}

// newUnstoredLimits returns the limits for a broker.
func newUnstoredLimits(b broker.Broker) *unstoredLimits {
	if _, ok := b.(broker.Quotas); ok {
		return &unstoredLimits{most: maxUnstoredQuotas, factor: 1}
	}
	return &unstoredLimits{most: maxUnstored, factor: sharedFactor}
}

func (l *unstoredLimits) limiter(peerID string) *unstoredLimiter {
	return &unstoredLimiter{l, peerID, semaphore.NewWeighted(l.most)}
}

// unstoredLimiter bounds the messages of one peer that the broker has not stored yet.
// Connections that wait for capacity are served in order.
type unstoredLimiter struct {
	*unstoredLimits
	peerID   string
	capacity *semaphore.Weighted
}

// acquire waits until a message may be handed to the broker, or ctx is done. It returns
// the capacity that the caller must release when the message is stored.
func (l *unstoredLimiter) acquire(ctx context.Context, body []byte) (acquired int64, err error) {
	acquired = max(int64(len(body)), minUnstored)
	if l.activity.shared(l.peerID, time.Now()) {
		acquired *= l.factor
	}
	acquired = min(acquired, l.most)
	if l.capacity.TryAcquire(acquired) {
		return acquired, nil
	}
	return acquired, l.capacity.Acquire(ctx, acquired)
}

func (l *unstoredLimiter) release(acquired int64) { l.capacity.Release(acquired) }

// peerActivity records which two peers have sent messages most recently.
type peerActivity struct {
	mu            sync.Mutex
	latest, other activePeer
}

type activePeer struct {
	id string
	at time.Time
}

// shared records that a peer has sent a message, and reports whether another one is
// active.
func (a *peerActivity) shared(id string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.latest.id != id {
		a.other = a.latest
	}
	a.latest = activePeer{id, now}
	return now.Sub(a.other.at) < activeFor
}
