package embedded

import (
	"context"

	"peerlink/internal/wait"
)

// unstored counts the messages of each peer that were accepted and are not stored yet. Without
// it, a peer could exceed its quota by all messages that are on their way to the disk, which is
// several times a small quota. It is guarded by quotas.mu.
type unstored struct {
	bytes   map[string]int64 // by sending peer; as in table usage
	settled wait.Broadcast   // notified when bytes has become less
}

// reserve counts a message as accepted, to be passed to settle. While the quota of the peer has no
// space for it, reserve waits for the messages that are not stored yet. Then it accepts the
// message also beyond the quota: that is for AwaitQuota to prevent, which knows how many are
// stored.
func (s *Store) reserve(ctx context.Context, r row) error {
	if !s.quotas.limited() || r.counted() == 0 {
		return nil
	}
	for {
		settled, ok := s.quotas.tryReserve(r.message.Peer, r.counted())
		if ok {
			return nil
		}
		if err := s.waitFor(ctx, settled, nil); err != nil {
			return err
		}
	}
}

// tryReserve is reserve without waiting. If it returns false, it may succeed after the channel was
// closed.
func (q *quotas) tryReserve(peer string, bytes int64) (settled <-chan struct{}, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if before := q.unstored.bytes[peer]; before > 0 && q.usage[peer]+before+bytes > q.limit {
		return q.unstored.settled.Next(), false
	}
	q.unstored.bytes[peer] += bytes
	return nil, true
}

// settle ends the reservations of messages that are stored, or will not be stored.
func (q *quotas) settle(rows ...row) {
	if !q.limited() {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range rows {
		peer := r.message.Peer
		if q.unstored.bytes[peer] -= r.counted(); q.unstored.bytes[peer] <= 0 {
			delete(q.unstored.bytes, peer)
		}
	}
	q.unstored.settled.Notify()
}
