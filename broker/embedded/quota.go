package embedded

import (
	"context"
	"log/slog"
	"sync"

	"peerlink/broker"
)

// quotas bound what the received messages of each peer may take in the file.
// Their bytes are counted in table usage, by the transactions that store and
// remove the messages, so the count is right after a crash too.
type quotas struct {
	limit int64 // of each peer; 0: none
	log   *slog.Logger

	mu    sync.Mutex
	usage map[string]int64 // by peer, as last committed
	held  map[string]bool  // by peer: it has reached the limit, and is not yet well below it again
	eased chan struct{}    // closed, and replaced, when a peer is held no more
}

func newQuotas(limit int64, usage map[string]int64, log *slog.Logger) *quotas {
	q := &quotas{limit: limit, log: log, usage: make(map[string]int64), held: make(map[string]bool), eased: make(chan struct{})}
	q.update(usage)
	return q
}

// limited reports whether there is a limit.
func (q *quotas) limited() bool { return q.limit > 0 }

// update sets what the messages of some peers take.
func (q *quotas) update(usage map[string]int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for peer, bytes := range usage {
		q.usage[peer] = bytes
		switch held := q.held[peer]; {
		case !q.limited():
		case !held && bytes >= q.limit:
			q.held[peer] = true
			q.log.Warn("the messages of a peer fill its quota, no more are taken until the applications have taken some",
				"peer", peer, "bytes", bytes, "quota", q.limit)
		case held && bytes <= q.limit-q.limit/8:
			delete(q.held, peer)
			close(q.eased)
			q.eased = make(chan struct{})
			q.log.Info("messages of the peer are taken again", "peer", peer, "bytes", bytes)
		}
	}
}

// heldUp reports whether a peer must wait, and what for.
func (q *quotas) heldUp(peer string) (eased chan struct{}, held bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.eased, q.held[peer]
}

// of returns how many bytes the messages of a peer take.
func (q *quotas) of(peer string) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.usage[peer]
}

// total returns how many bytes the messages of all peers take.
func (q *quotas) total() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	total := int64(0)
	for _, bytes := range q.usage {
		total += bytes
	}
	return total
}

// received returns how many bytes the messages of peers take that no application has
// taken out yet, with those on their way to disk.
func (s *Store) received() int64 { return s.quotas.total() + s.writer.received.used.Load() }

// AwaitQuota waits while the received messages of the peer that no application has
// taken yet fill its quota ([Options].PeerQuota), or the disk is almost full
// ([Options].MinFree). What is on its way to disk does not count for the quota: that
// is bounded for all together.
func (s *Store) AwaitQuota(ctx context.Context, peer string) error {
	for {
		eased, held := s.quotas.heldUp(peer)
		if !held {
			break
		}
		if err := s.waitFor(ctx, eased, nil); err != nil {
			return err
		}
	}
	return s.disk.awaitRoom(ctx, s)
}

var _ broker.Quotas = (*Store)(nil)
