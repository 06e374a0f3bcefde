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
	// confirmed is the last message confirmed by any consumer. The removal of it and of
	// earlier messages may not be durable yet.
	confirmed uint64
	last      *confirmOp // the last operation submitted
	// excluded are the messages that the consumer wants to move to the dead letters, and
	// whose move is not known to be done. Confirmations do not remove them.
	excluded map[uint64]bool
}

// reset prepares o for its next consumer, which begins with the messages that the last one
// could not move to the dead letters. The caller holds o.mu.
func (o *peerQueue) reset() {
	for tag := range o.excluded {
		o.confirmed = min(o.confirmed, tag-1)
	}
	o.excluded, o.last = make(map[uint64]bool), nil
}

// CheckInUse reports [broker.ErrInUse] if the queue has a consumer or a [Subscription].
func (s *Store) CheckInUse(_ context.Context, queue string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if inbox := s.inboxes[queue]; inbox != nil && inbox.subscribed() || s.hasConsumer(queue) {
		return fmt.Errorf("queue %s: %w", queue, broker.ErrInUse)
	}
	return nil
}

// Consume opens a queue for consuming. It reports [broker.ErrNoQueue], and [broker.ErrInUse] if the
// queue has another consumer or a [Subscription].
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
		return nil, fmt.Errorf("consume queue %s: %w by a subscription", queue, broker.ErrInUse)
	}
	o := s.peerQueues[queue]
	if o == nil {
		o = &peerQueue{}
		s.peerQueues[queue] = o
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.consumer != nil {
		return nil, fmt.Errorf("consume queue %s: %w by another consumer", queue, broker.ErrInUse)
	}
	o.reset()
	c := &consumer{
		store:     s,
		queue:     queue,
		peerQueue: o,
		nextMu:    newCtxMutex(),
		arrived:   wait.NewSignal(),
		closed:    make(chan struct{}),
		delivered: o.confirmed,
	}
	o.consumer = c
	s.notifier.add(queue, c.arrived, nil)
	return c, nil
}

// hasConsumer reports whether the queue has a consumer. The caller holds s.mu.
func (s *Store) hasConsumer(queue string) bool {
	o := s.peerQueues[queue]
	if o == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.consumer != nil
}

type consumer struct {
	store     *Store
	queue     string
	peerQueue *peerQueue
	nextMu    ctxMutex
	arrived   wait.Signal
	closed    chan struct{}

	delivered uint64 // the last message delivered; guarded by peerQueue.mu
}

// Next waits for messages that were not delivered yet, and returns up to max of them, of
// about 1 MiB in total.
func (c *consumer) Next(ctx context.Context, max int) ([]broker.Delivery, error) {
	if max < 1 {
		return nil, fmt.Errorf("%w: %d messages wanted, expected at least 1", errInvalid, max)
	}
	if err := c.nextMu.lock(ctx, c.closed); err != nil {
		return nil, err
	}
	defer c.nextMu.unlock()
	for {
		given, ok := c.position()
		if !ok {
			return nil, broker.ErrClosed
		}
		var found []broker.Delivery
		err := c.store.read(ctx, "take messages out of queue "+c.queue, func(r *readConn) (err error) {
			found, err = r.readDeliveries(c.queue, given, max)
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

// position returns the last delivered message, and whether c is open.
func (c *consumer) position() (uint64, bool) {
	c.peerQueue.mu.Lock()
	defer c.peerQueue.mu.Unlock()
	return c.delivered, c.peerQueue.consumer == c
}

// advance records that all messages up to tag are delivered, if c is open.
func (c *consumer) advance(tag uint64) bool {
	c.peerQueue.mu.Lock()
	defer c.peerQueue.mu.Unlock()
	if c.peerQueue.consumer != c {
		return false
	}
	c.delivered = tag
	return true
}

// confirmOp removes the messages of a queue up to and including through.
type confirmOp struct {
	queue   string
	batch   int
	except  []uint64 // sorted
	through uint64
}

// Confirm removes the delivery with this tag and all earlier deliveries. It reports
// [errNotGivenOut] for a tag that was not delivered yet. A tag that was confirmed already
// is no error.
func (c *consumer) Confirm(tag uint64) error {
	o := c.peerQueue
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.consumer != c {
		return broker.ErrClosed
	}
	if tag > c.delivered {
		return fmt.Errorf("confirm message %d of queue %s: %w", tag, c.queue, errNotGivenOut)
	}
	if tag <= o.confirmed {
		return nil
	}
	// Only the highest tag counts: a batch has at most one confirmation for each queue,
	// which is why confirmations need no budget.
	w := c.store.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	if o.last != nil && w.isGathering(o.last.batch) {
		o.last.through = tag
	} else {
		op := &confirmOp{queue: c.queue, batch: w.number, except: slices.Sorted(maps.Keys(o.excluded)), through: tag}
		if err := w.submitLocked(op); err != nil {
			return err
		}
		o.last = op
	}
	o.confirmed = tag
	return nil
}

func (o *confirmOp) apply(t *tx) error {
	if err := t.removeThrough(o.queue, o.through, o.except); err != nil && !isResult(err) {
		return err
	}
	return nil
}

func (o *confirmOp) finish(error) {}

// split returns confirmations up to increasing tags, at most apart.
func (o *confirmOp) split(t *tx, most uint64) (parts []op, err error) {
	first, err := t.firstSeq(o.queue)
	if err != nil {
		return nil, err
	}
	for through := first + most; first > 0 && through < o.through; through += most {
		parts = append(parts, &confirmOp{queue: o.queue, except: o.except, through: through})
	}
	return parts, nil
}

func (o *confirmOp) cost() (kind, quantity) { return maintenance, quantity{} }

// DeadLetter moves one delivery to the dead letters. It reports [errNotGivenOut] for a
// message that was not delivered, or does not exist any more. If ctx ends before the move
// is durable, the move may or may not happen.
func (c *consumer) DeadLetter(ctx context.Context, tag uint64, reason string) error {
	settled, err := c.startDeadLetter(tag, reasonText(reason))
	if err == nil {
		if err = await(ctx, settled); err == nil || errors.Is(err, errNotGivenOut) {
			c.peerQueue.deadLettered(tag)
		}
	}
	if err != nil {
		return fmt.Errorf("set aside message %d of queue %s: %w", tag, c.queue, err)
	}
	return nil
}

// Exclude excludes one delivery from later confirmations. It reports [errNotGivenOut] for
// a message that was not delivered, or was confirmed already.
func (c *consumer) Exclude(tag uint64) error {
	o := c.peerQueue
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := c.exclude(tag); err != nil {
		return fmt.Errorf("keep message %d of queue %s: %w", tag, c.queue, err)
	}
	return nil
}

// exclude implements Exclude. The caller holds c.peerQueue.mu.
func (c *consumer) exclude(tag uint64) error {
	o := c.peerQueue
	switch {
	case o.consumer != c:
		return broker.ErrClosed
	case !o.excluded[tag] && (tag <= o.confirmed || tag > c.delivered):
		return errNotGivenOut
	}
	o.excluded[tag] = true
	// Later confirmations must not be merged into the last submitted one, which does not
	// except this message.
	o.last = nil
	return nil
}

func (c *consumer) startDeadLetter(tag uint64, reason string) (<-chan error, error) {
	o := c.peerQueue
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := c.exclude(tag); err != nil {
		return nil, err
	}
	return c.store.start(func(t *tx) error {
		moved, err := t.addDeadLetter(c.queue, tag, reason)
		if err == nil && !moved {
			err = errNotGivenOut
		}
		return err
	})
}

// deadLettered records that a message is a dead letter, or does not exist any more.
func (o *peerQueue) deadLettered(tag uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.excluded, tag)
}

// Close returns unconfirmed messages to the queue. It waits up to flushTime until the
// confirmations are durable; they are valid without that.
func (c *consumer) Close() error {
	o := c.peerQueue
	o.mu.Lock()
	open := o.consumer == c
	if open {
		o.consumer = nil
		close(c.closed)
	}
	o.mu.Unlock()
	if open {
		c.store.notifier.remove(c.queue, c.arrived)
		c.store.flush()
	}
	return nil
}
