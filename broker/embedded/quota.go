package embedded

import (
	"context"
	"log/slog"
	"maps"
	"sync"

	"peerlink/broker"
	"peerlink/internal/wait"
)

// quotas limit the size of the messages received from each peer in the file. Their bytes are
// counted in table usage, by the transactions that store and remove the messages, so that
// the count is correct after a crash too.
type quotas struct {
	limit int64 // of each peer, in bytes; 0: none
	log   *slog.Logger

	eased wait.Broadcast // notified when a peer has been removed from blockedPeers

	mu           sync.Mutex
	usage        map[string]int64 // by sending peer: bytes, as last committed
	unstored     unstored
	blockedPeers map[string]bool // peers that have reached the limit, and are not yet down to 7/8 of it again
}

func newQuotas(limit int64, usage map[string]int64, log *slog.Logger) *quotas {
	q := &quotas{limit: limit, log: log, usage: make(map[string]int64), blockedPeers: make(map[string]bool),
		unstored: unstored{bytes: make(map[string]int64)}}
	q.update(usage)
	return q
}

// limited reports whether there is a limit.
func (q *quotas) limited() bool { return q.limit > 0 }

// update sets the sizes, in bytes, of the messages of some peers, and decides which of them are
// blocked.
func (q *quotas) update(usage map[string]int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for peer, bytes := range usage {
		q.usage[peer] = bytes
		switch blocked := q.blockedPeers[peer]; {
		case !q.limited():
		case !blocked && bytes >= q.limit:
			q.blockedPeers[peer] = true
			q.log.Warn("the messages of a peer fill its quota, no more are accepted until applications consume some",
				"peer", peer, "bytes", bytes, "quota", q.limit)
		case blocked && bytes <= q.limit-q.limit/8:
			delete(q.blockedPeers, peer)
			q.eased.Notify()
			q.log.Info("messages of the peer are accepted again", "peer", peer, "bytes", bytes)
		}
	}
}

// isBlocked reports whether a peer must wait, and returns a channel that is closed when this
// may have changed.
func (q *quotas) isBlocked(peer string) (eased <-chan struct{}, blocked bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.eased.Next(), q.blockedPeers[peer]
}

// usageOf returns the size of a peer's messages in bytes.
func (q *quotas) usageOf(peer string) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.usage[peer]
}

// all returns a copy of the sizes of the messages of all peers.
func (q *quotas) all() map[string]int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return maps.Clone(q.usage)
}

// total returns the size of all peers' messages in bytes.
func (q *quotas) total() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	total := int64(0)
	for _, bytes := range q.usage {
		total += bytes
	}
	return total
}

// unconsumedFromPeers returns the size in bytes of the messages of peers that no application
// has consumed yet, including those that are not durable yet.
func (s *Store) unconsumedFromPeers() int64 {
	return s.quotas.total() + s.writer.peerBudget.used.Load()
}

// AwaitQuota waits while the messages of the peer that no application has consumed yet fill its
// quota ([Options].PeerQuota) or, after that, more than 7/8 of it, and while the disk has no
// space for messages of peers ([Options].MinFree). Messages that are not durable yet do not
// count here: while they would fill the quota, publishing waits until they are durable.
func (s *Store) AwaitQuota(ctx context.Context, peer string) error {
	for {
		eased, blocked := s.quotas.isBlocked(peer)
		if !blocked {
			break
		}
		if err := s.waitFor(ctx, eased, nil); err != nil {
			return err
		}
	}
	return s.disk.awaitRoom(ctx, s)
}

var _ broker.Quotas = (*Store)(nil)
