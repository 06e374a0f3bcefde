package embedded

import (
	"context"
	"fmt"
	"slices"

	"peerlink/broker"
)

// Move moves the messages of a queue or an inbox to another place: it calls store with up to limit
// messages, in their order, and removes them, until the queue is empty. limit must be positive. store must
// have stored the messages durably when it returns nil. After an error, or if the process is killed, the
// messages of the last call are in both places, or in this one only. Move returns how many messages it has moved, and
// [broker.ErrInUse] if the queue has a consumer or a subscription of this Store.
//
// It does not move dead letters: see MoveDeadLetters.
func (s *Store) Move(ctx context.Context, queue string, limit int, store func(context.Context, []Message) error) (moved int, err error) {
	if err := s.CheckInUse(ctx, queue); err != nil {
		return 0, err
	}
	for {
		found, err := s.Peek(ctx, queue, limit)
		if err != nil || len(found) == 0 {
			return moved, err
		}
		if err := store(ctx, found); err != nil {
			return moved, err
		}
		var seqs []uint64
		freed := make(map[string]int64) // bytes, by sending peer; see tx.remove
		for _, m := range found {
			seqs = append(seqs, m.Seq)
			if m.Peer != "" {
				freed[m.Peer] += m.counted
			}
		}
		if err := s.commit(ctx, func(t *tx) error { return t.remove(queue, seqs, freed) }); err != nil {
			return moved, fmt.Errorf("remove messages from queue %s: %w", queue, err)
		}
		moved += len(found)
	}
}

// MoveDeadLetters is like [Store.Move], for the dead letters of a queue. It does not check whether the queue
// is in use. It returns [broker.ErrNoQueue] if the queue does not exist.
func (s *Store) MoveDeadLetters(ctx context.Context, queue string, limit int, store func(context.Context, []broker.DeadLetter) error) (moved int, err error) {
	for {
		page, _, err := s.readDeadLetters(ctx, queue, 0)
		if err != nil || len(page) == 0 {
			return moved, err
		}
		for part := range slices.Chunk(page, limit) {
			if err := store(ctx, part); err != nil {
				return moved, err
			}
			var ids []string
			for _, m := range part {
				ids = append(ids, m.ID)
			}
			n, err := s.Drop(ctx, queue, ids)
			moved += n
			if err != nil {
				return moved, err
			}
		}
	}
}
