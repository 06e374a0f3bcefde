package embedded

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"peerlink/broker"
)

var _ broker.DeadLetters = (*Store)(nil)

const (
	// deadLetterPage is how many dead letters are read at once, within the limit of readBytes.
	deadLetterPage = 256
	// maxMoves bounds the number of dead letters that one transaction retries or drops. Other
	// operations wait for the transaction.
	maxMoves = 1000
)

// Info counts the messages of a queue. Delivered messages that are not confirmed count as
// waiting. Info returns [broker.ErrNoQueue] if the queue does not exist.
func (s *Store) Info(ctx context.Context, queue string) (broker.QueueInfo, error) {
	var c broker.QueueInfo
	err := s.read(ctx, "count messages of queue "+queue, func(r *readConn) error {
		exists := false
		err := r.queueInfo.query(func(cols []driver.Value) bool {
			exists = true
			c.Waiting, c.DeadLetters = int(number(cols[0])), int(number(cols[1]))
			if cols[2] != nil {
				c.Oldest = time.UnixMilli(number(cols[2]))
			}
			if cols[3] != nil {
				c.OldestWaiting = time.UnixMilli(number(cols[3]))
			}
			return false
		}, queue)
		if err == nil && !exists {
			err = broker.ErrNoQueue
		}
		return err
	})
	if err != nil {
		return broker.QueueInfo{}, err
	}
	return c, nil
}

// List iterates over the dead letters of a queue in the order that they had in the queue.
// Their IDs are their sequence numbers in the queue. List yields
// [broker.ErrNoQueue] if the queue does not exist.
func (s *Store) List(ctx context.Context, queue string) iter.Seq2[broker.DeadLetter, error] {
	return func(yield func(broker.DeadLetter, error) bool) {
		for after := uint64(0); ; {
			page, last, err := s.readDeadLetters(ctx, queue, after)
			if err != nil {
				yield(broker.DeadLetter{}, err)
				return
			}
			if len(page) == 0 {
				return
			}
			after = last
			for _, m := range page {
				if !yield(m, nil) {
					return
				}
			}
		}
	}
}

func (s *Store) readDeadLetters(ctx context.Context, queue string, after uint64) (page []broker.DeadLetter, last uint64, err error) {
	err = s.read(ctx, "read dead letters of queue "+queue, func(r *readConn) error {
		_, exists, err := r.lastSeq(queue)
		if err == nil && !exists {
			err = broker.ErrNoQueue
		}
		if err != nil {
			return err
		}
		page, last, err = r.readDeadLetters(queue, after, deadLetterPage)
		return err
	})
	return page, last, err
}

// Retry moves dead letters back to the end of their queue, up to maxMoves in each
// transaction: a message is never in both places. Those of an [UnroutableQueue] are routed
// again; if some still can not be routed, Retry returns [broker.ErrUnroutable]. If ctx ends, the last transaction may or
// may not take place.
func (s *Store) Retry(ctx context.Context, queue string, ids []string) (int, error) {
	n, err := s.forEachDeadLetter(ctx, queue, ids, (*tx).retry)
	if err != nil {
		err = fmt.Errorf("retry messages of queue %s: %w", queue, err)
	}
	return n, err
}

// Drop deletes dead letters, up to maxMoves in each transaction. If ctx ends, the last
// transaction may or may not take place.
func (s *Store) Drop(ctx context.Context, queue string, ids []string) (int, error) {
	n, err := s.forEachDeadLetter(ctx, queue, ids, (*tx).drop)
	if err != nil {
		err = fmt.Errorf("drop messages of queue %s: %w", queue, err)
	}
	return n, err
}

// forEachDeadLetter calls do, which retries or drops one dead letter and reports whether it
// existed, for each of the IDs. It returns how many existed, without those for which do has
// returned [broker.ErrUnroutable].
func (s *Store) forEachDeadLetter(ctx context.Context, queue string, ids []string, do func(*tx, *queueChanges, uint64) (bool, error)) (int, error) {
	seqs, missing := parseIDs(ids)
	total, unroutable := 0, 0
	for part := range slices.Chunk(seqs, maxMoves) {
		var done, stay int
		var gone []string
		if err := s.commit(ctx, func(t *tx) error {
			done, stay, gone = 0, 0, nil // the transaction may be retried
			q, err := t.queue(queue)
			if err != nil {
				return err
			}
			for _, seq := range part {
				switch ok, err := do(t, q, seq); {
				case errors.Is(err, broker.ErrUnroutable):
					stay++
				case err != nil:
					return err
				case ok:
					done++
				default:
					gone = append(gone, strconv.FormatUint(seq, 10))
				}
			}
			return nil
		}); err != nil {
			return total, err
		}
		total += done
		unroutable += stay
		missing = append(missing, gone...)
	}
	err := broker.NoDeadLetterError(missing)
	if unroutable > 0 {
		err = errors.Join(err, fmt.Errorf("%w: %d messages stay set aside, since %s", broker.ErrUnroutable, unroutable, unroutableReason))
	}
	return total, err
}

// parseIDs returns the sequence numbers that the IDs denote, sorted and without
// duplicates, and the invalid IDs.
func parseIDs(ids []string) (seqs []uint64, bad []string) {
	for _, id := range ids {
		// List never returns another spelling, such as 007. SQLite's integers end at
		// 2^63-1.
		if n, err := strconv.ParseInt(id, 10, 64); err != nil || n < 1 || strconv.FormatInt(n, 10) != id {
			bad = append(bad, id)
		} else {
			seqs = append(seqs, uint64(n))
		}
	}
	slices.Sort(seqs)
	return slices.Compact(seqs), bad
}

// retry moves a dead letter to the end of its queue, or, if it could not be routed, of the queues
// that it is routed to now, and reports whether it existed. It returns
// [broker.ErrUnroutable] if it still can not be routed.
func (t *tx) retry(q *queueChanges, seq uint64) (bool, error) {
	queues, err := t.routeAgain(q, seq)
	if errors.Is(err, broker.ErrNoDeadLetter) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	for _, to := range queues {
		n, err := t.moveBack.exec(to.id, to.nextSeq, t.now, t.epoch, q.id, int64(seq))
		if err != nil || n == 0 {
			return false, err
		}
		to.nextSeq++
		to.depth++
		to.gaps = true
	}
	return t.drop(q, seq)
}

// deadLetterKey returns the routing key of a dead letter, or [broker.ErrNoDeadLetter].
func (t *tx) deadLetterKey(q *queueChanges, seq uint64) (key string, err error) {
	found := false
	err = t.routingKey.query(func(cols []driver.Value) bool {
		key, found = text(cols[0]), true
		return false
	}, q.id, int64(seq))
	if err == nil && !found {
		err = broker.ErrNoDeadLetter
	}
	return key, err
}

// drop deletes a dead letter, and reports whether it existed.
func (t *tx) drop(q *queueChanges, seq uint64) (bool, error) {
	n, err := t.removeDeadLetters.exec(q.id, int64(seq))
	return n > 0, err
}
