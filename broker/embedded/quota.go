package embedded

import (
	"context"
	"log/slog"
	"maps"
	"sync"

	"peerlink/broker"
	"peerlink/internal/wait"
)

// quotas limits, for each peer, the total size of the messages received from it that are in the
// file. The size is kept in the table usage by the transactions that store and remove messages,
// so it is correct after a crash too.
type quotas struct {
	limit int64 // of each peer, in bytes; 0: none
	log   *slog.Logger

	unblocked wait.Broadcast // notified when a peer is removed from blockedPeers

	mu           sync.Mutex
	usage        map[string]int64 // by sending peer: bytes, as last committed
	unstored     unstored
	blockedPeers map[string]bool // peers that have reached the limit, until their usage is 7/8 of it or less
}

func newQuotas(limit int64, usage map[string]int64, log *slog.Logger) *quotas {
	q := &quotas{limit: limit, log: log, usage: make(map[string]int64), blockedPeers: make(map[string]bool),
		unstored: unstored{bytes: make(map[string]int64)}}
	q.update(usage)
	return q
}

// limited reports whether there is a limit.
func (q *quotas) limited() bool { return q.limit > 0 }

// update sets the sizes, in bytes, of the messages of the peers in usage, and determines which of
// these peers are blocked. Other peers keep their values.
func (q *quotas) update(usage map[string]int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for peer, bytes := range usage {
		bytes = max(bytes, 0) // see writeConn.addUsage
		q.usage[peer] = bytes
		switch blocked := q.blockedPeers[peer]; {
		case !q.limited():
		case !blocked && bytes >= q.limit:
			q.blockedPeers[peer] = true
			q.log.Warn("the messages of a peer fill its quota, no more are accepted until applications consume some",
				"peer", peer, "bytes", bytes, "quota", q.limit)
		case blocked && bytes <= q.limit-q.limit/8:
			delete(q.blockedPeers, peer)
			q.unblocked.Notify()
			q.log.Info("messages of the peer are accepted again", "peer", peer, "bytes", bytes)
		}
	}
}

// isBlocked reports whether a peer must wait, and returns a channel that is closed when any
// peer is unblocked.
func (q *quotas) isBlocked(peer string) (unblocked <-chan struct{}, blocked bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.unblocked.Next(), q.blockedPeers[peer]
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

// AwaitQuota returns when messages may be accepted from the peer, or with an error when ctx is done
// or the store is closed. When the messages of the peer that no application has consumed yet have
// filled its quota ([Options].PeerQuota), AwaitQuota waits until they fill 7/8 of it or less. Then
// it waits until the disk has space for messages of peers ([Options].MinFree). Messages that are
// not durable yet do not count here: while they would fill the quota, publishing waits until they
// are durable.
func (s *Store) AwaitQuota(ctx context.Context, peer string) error {
	for {
		unblocked, blocked := s.quotas.isBlocked(peer)
		if !blocked {
			break
		}
		if err := s.waitFor(ctx, unblocked, nil); err != nil {
			return err
		}
	}
	return s.disk.awaitRoom(ctx, s)
}

var _ broker.Quotas = (*Store)(nil)
