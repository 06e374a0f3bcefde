package embedded

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"peerlink/broker"
	"peerlink/internal/wait"
)

// peerQueue is the consuming side of a peer's queue. It outlives its consumers.
type peerQueue struct {
	mu       sync.Mutex
	consumer *consumer // nil if there is none
	// confirmed is the tag of the last message confirmed by any consumer: the next consumer begins
	// after it. The removal of this and of earlier messages may not be durable yet. It
	// increases, except in reset.
	confirmed uint64
	// pending is the last confirmation submitted to the writer. A later one is merged into
	// it while the writer is still collecting the batch that contains it. It is nil if the next
	// confirmation must not be merged.
	pending *confirmOp
	// excluded are the messages that the consumer has excluded from confirmations, to move
	// them to the dead letters, and whose move is not known to be done.
	excluded map[uint64]bool
}

// reset prepares q for a new consumer: if messages are still excluded, it lowers
// q.confirmed so that the new consumer begins with the first of them. Later messages whose
// confirmed removal is not durable yet may then be delivered again. The caller holds q.mu.
func (q *peerQueue) reset() {
	for tag := range q.excluded {
		q.confirmed = min(q.confirmed, tag-1)
	}
	q.excluded, q.pending = make(map[uint64]bool), nil
}

// CheckInUse returns [broker.ErrInUse] if the queue has a consumer or a [Subscription] of this
// Store. Those of other processes are not detected.
func (s *Store) CheckInUse(_ context.Context, queue string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if inbox := s.inboxes[queue]; inbox != nil && inbox.subscribed() || s.hasConsumer(queue) {
		return fmt.Errorf("queue %s: %w", queue, broker.ErrInUse)
	}
	return nil
}

// Consume opens a queue for consuming. It returns [broker.ErrNoQueue] if the queue does not
// exist, and [broker.ErrInUse] as CheckInUse does.
func (s *Store) Consume(ctx context.Context, queue string) (broker.Consumer, error) {
	err := s.read(ctx, "consume queue "+queue, func(r *readConn) error {
		_, exists, err := r.lastSeq(queue)
		if err == nil && !exists {
			err = broker.ErrNoQueue
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inboxes[queue] != nil && s.inboxes[queue].subscribed() {
		return nil, fmt.Errorf("consume queue %s: %w: it has a subscription", queue, broker.ErrInUse)
	}
	q := s.peerQueues[queue]
	if q == nil {
		q = &peerQueue{}
		s.peerQueues[queue] = q
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.consumer != nil {
		return nil, fmt.Errorf("consume queue %s: %w: it has another consumer", queue, broker.ErrInUse)
	}
	q.reset()
	c := &consumer{
		store:     s,
		queue:     queue,
		peerQueue: q,
		nextMu:    newCtxMutex(),
		arrived:   wait.NewSignal(),
		closed:    make(chan struct{}),
		delivered: q.confirmed,
	}
	q.consumer = c
	s.notifier.add(queue, c.arrived, nil)
	return c, nil
}

// hasConsumer reports whether the queue has a consumer. The caller holds s.mu.
func (s *Store) hasConsumer(queue string) bool {
	q := s.peerQueues[queue]
	if q == nil {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.consumer != nil
}

type consumer struct {
	store     *Store
	queue     string
	peerQueue *peerQueue
	nextMu    ctxMutex      // held by Next
	arrived   wait.Signal   // notified when messages have been stored in the queue
	closed    chan struct{} // closed by Close

	delivered uint64 // tag of the last message delivered; guarded by peerQueue.mu
}

// Next waits for messages that were not delivered yet, and returns up to limit of them, of
// about 1 MiB in total.
func (c *consumer) Next(ctx context.Context, limit int) ([]broker.Delivery, error) {
	if limit < 1 {
		return nil, fmt.Errorf("%w: %d messages requested, expected at least 1", errInvalid, limit)
	}
	if err := c.nextMu.lock(ctx, c.closed); err != nil {
		return nil, err
	}
	defer c.nextMu.unlock()
	for {
		delivered, ok := c.position()
		if !ok {
			return nil, broker.ErrClosed
		}
		var found []broker.Delivery
		err := c.store.read(ctx, "read messages of queue "+c.queue, func(r *readConn) (err error) {
			found, err = r.readDeliveries(c.queue, delivered, limit)
			return err
		})
		if err != nil {
			return nil, err
		}
		if len(found) > 0 {
			if !c.advance(found[len(found)-1].Tag) {
				return nil, broker.ErrClosed
			}
			return found, nil
		}
		if err := c.store.waitFor(ctx, c.arrived, c.closed); err != nil {
			return nil, err
		}
	}
}

// position returns the tag of the last delivered message, and whether c is open.
func (c *consumer) position() (uint64, bool) {
	c.peerQueue.mu.Lock()
	defer c.peerQueue.mu.Unlock()
	return c.delivered, c.peerQueue.consumer == c
}

// advance records that all messages up to tag are delivered, if c is open. It reports whether
// c is open.
func (c *consumer) advance(tag uint64) bool {
	c.peerQueue.mu.Lock()
	defer c.peerQueue.mu.Unlock()
	if c.peerQueue.consumer != c {
		return false
	}
	c.delivered = tag
	return true
}

// confirmOp removes the messages of a queue up to and including through, except those in
// except.
type confirmOp struct {
	queue       string
	batchNumber int      // of the writer's batch that contains this operation
	except      []uint64 // sorted
	through     uint64
}

// Confirm removes the delivery with this tag and all earlier deliveries, except the
// excluded ones. It returns an error for a tag that was not delivered yet, and nil for a
// tag that was confirmed already.
func (c *consumer) Confirm(tag uint64) error {
	q := c.peerQueue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.consumer != c {
		return broker.ErrClosed
	}
	if tag > c.delivered {
		return fmt.Errorf("confirm message %d of queue %s: %w", tag, c.queue, errNotDelivered)
	}
	if tag <= q.confirmed {
		return nil
	}
	// Confirm merges this confirmation into the pending one, if there is one: the highest
	// tag includes the lower ones. So the writer's batch has few confirmations of a queue, and
	// these need not count against the writer's budgets.
	w := c.store.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	if q.pending != nil && w.isCollecting(q.pending.batchNumber) {
		q.pending.through = tag
	} else {
		op := &confirmOp{queue: c.queue, batchNumber: w.batchNumber, except: slices.Sorted(maps.Keys(q.excluded)), through: tag}
		if err := w.submitLocked(op); err != nil {
			return err
		}
		q.pending = op
	}
	q.confirmed = tag
	return nil
}

// apply removes the messages. If the queue does not exist any more, there is nothing to remove.
func (op *confirmOp) apply(t *tx) error {
	if err := t.removeThrough(op.queue, op.through, op.except); err != nil && !isOpError(err) {
		return err
	}
	return nil
}

func (op *confirmOp) finish(error) {} // nobody waits for the result

// split returns confirmations that remove the messages in parts of at most size messages
// (fewer where sequence numbers are missing); op itself then removes the last part.
func (op *confirmOp) split(t *tx, size uint64) (parts []op, err error) {
	first, err := t.firstSeq(op.queue)
	if err != nil {
		return nil, err
	}
	for through := first + size; first > 0 && through < op.through; through += size {
		parts = append(parts, &confirmOp{queue: op.queue, except: op.except, through: through})
	}
	return parts, nil
}

func (op *confirmOp) cost() (kind, quantity) { return maintenance, quantity{} }

// DeadLetter moves one delivery to the dead letters. It returns an error for a message that
// was not delivered, was confirmed already, or does not exist any more. If ctx ends before
// the move is durable, the move may or may not happen.
func (c *consumer) DeadLetter(ctx context.Context, tag uint64, reason string) error {
	result, err := c.startDeadLetter(tag, reasonText(reason))
	if err == nil {
		if err = await(ctx, result); err == nil || errors.Is(err, errNotDelivered) {
			c.peerQueue.endExclusion(tag)
		}
	}
	if err != nil {
		return fmt.Errorf("dead-letter message %d of queue %s: %w", tag, c.queue, err)
	}
	return nil
}

// maxExcluded is how many messages a consumer may have excluded. Each makes every confirmation
// slower.
const maxExcluded = 1024

// Exclude excludes one delivery from later confirmations. It returns an error for a message
// that was not delivered, or was confirmed already, and [broker.ErrTooManyExcluded] if
// maxExcluded messages are excluded.
func (c *consumer) Exclude(tag uint64) error {
	q := c.peerQueue
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := c.exclude(tag); err != nil {
		return fmt.Errorf("exclude message %d of queue %s: %w", tag, c.queue, err)
	}
	return nil
}

// exclude implements Exclude. The caller holds c.peerQueue.mu.
func (c *consumer) exclude(tag uint64) error {
	q := c.peerQueue
	switch {
	case q.consumer != c:
		return broker.ErrClosed
	case !q.excluded[tag] && (tag <= q.confirmed || tag > c.delivered):
		return errNotDelivered
	case !q.excluded[tag] && len(q.excluded) >= maxExcluded:
		return broker.ErrTooManyExcluded
	}
	q.excluded[tag] = true
	// Later confirmations must not be merged into the pending one: this message is not
	// among its exceptions.
	q.pending = nil
	return nil
}

// startDeadLetter excludes a delivery, and submits its move to the dead letters to the
// writer. The channel receives the result.
func (c *consumer) startDeadLetter(tag uint64, reason string) (<-chan error, error) {
	q := c.peerQueue
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := c.exclude(tag); err != nil {
		return nil, err
	}
	return c.store.submitCall(func(t *tx) error {
		moved, err := t.addDeadLetter(c.queue, tag, reason)
		if err == nil && !moved {
			err = errNotDelivered
		}
		return err
	})
}

// endExclusion ends the exclusion of a message that has become a dead letter, or does not
// exist any more.
func (q *peerQueue) endExclusion(tag uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.excluded, tag)
}

// Close ends the consumer. The next consumer receives the unconfirmed messages. Confirmations
// remain valid; Close waits for up to flushTime until they are durable.
func (c *consumer) Close() error {
	q := c.peerQueue
	q.mu.Lock()
	open := q.consumer == c
	if open {
		q.consumer = nil
		close(c.closed)
	}
	q.mu.Unlock()
	if open {
		c.store.notifier.remove(c.queue, c.arrived)
		c.store.flush()
	}
	return nil
}
