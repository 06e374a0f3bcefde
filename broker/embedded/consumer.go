package embedded

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"peerlink/broker"
	"peerlink/internal/bell"
)

// outlet is where a peer's queue is emptied. It outlives its consumers.
type outlet struct {
	mu       sync.Mutex
	consumer *consumer // nil if there is none
	// confirmed is the last message confirmed to any consumer. Its removal,
	// and that of those before, may still be on its way to disk.
	confirmed uint64
	last      *confirmOp // the last one submitted
	// aside are the messages that the consumer wants to be set aside, of which it
	// is not known yet that they are. Confirmations leave them.
	aside map[uint64]bool
}

// reopen prepares the outlet for its next consumer, which begins with what the
// last one could not set aside. The caller holds o.mu.
func (o *outlet) reopen() {
	for tag := range o.aside {
		o.confirmed = min(o.confirmed, tag-1)
	}
	o.aside, o.last = make(map[uint64]bool), nil
}

// Free reports [ErrInUse] while a consumer or a [Subscription] takes messages
// out of the queue.
func (s *Store) Free(_ context.Context, queue string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if inbox := s.inboxes[queue]; inbox != nil && inbox.subscribed() || s.consumed(queue) {
		return fmt.Errorf("queue %s: %w", queue, ErrInUse)
	}
	return nil
}

// Consume opens a queue for taking messages out. It reports [ErrNoQueue], and
// [ErrInUse] while another consumer or a [Subscription] takes messages out of it.
func (s *Store) Consume(ctx context.Context, queue string) (broker.Consumer, error) {
	err := s.read(ctx, "consume queue "+queue, func(r *readConn) error {
		_, exists, err := r.lastSeq(queue)
		if err == nil && !exists {
			err = ErrNoQueue
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inboxes[queue] != nil && s.inboxes[queue].subscribed() {
		return nil, fmt.Errorf("consume queue %s: %w by a subscription", queue, ErrInUse)
	}
	o := s.outlets[queue]
	if o == nil {
		o = &outlet{}
		s.outlets[queue] = o
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.consumer != nil {
		return nil, fmt.Errorf("consume queue %s: %w by another consumer", queue, ErrInUse)
	}
	o.reopen()
	c := &consumer{
		store:  s,
		queue:  queue,
		outlet: o,
		turn:   newTurn(),
		bell:   bell.New(),
		closed: make(chan struct{}),
		given:  o.confirmed,
	}
	o.consumer = c
	s.bells.add(queue, c.bell, nil)
	return c, nil
}

// consumed tells whether the queue has a consumer. The caller holds s.mu.
func (s *Store) consumed(queue string) bool {
	o := s.outlets[queue]
	if o == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.consumer != nil
}

type consumer struct {
	store  *Store
	queue  string
	outlet *outlet
	turn   turn
	bell   bell.Bell
	closed chan struct{}

	given uint64 // the last message given out; guarded by outlet.mu
}

// Next waits for messages that have not been given out, and returns up to max
// of them, of about 1 MiB together.
func (c *consumer) Next(ctx context.Context, max int) ([]broker.Delivery, error) {
	if max < 1 {
		return nil, fmt.Errorf("%w: %d messages wanted, expected at least 1", ErrInvalid, max)
	}
	if err := c.turn.take(ctx, c.closed); err != nil {
		return nil, err
	}
	defer c.turn.pass()
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
			if !c.give(found[len(found)-1].Tag) {
				return nil, broker.ErrClosed
			}
			return found, nil
		}
		if err := c.store.waitFor(ctx, c.bell, c.closed); err != nil {
			return nil, err
		}
	}
}

// position returns the last message given out, and whether c is open.
func (c *consumer) position() (uint64, bool) {
	c.outlet.mu.Lock()
	defer c.outlet.mu.Unlock()
	return c.given, c.outlet.consumer == c
}

// give notes that everything up to tag is given out, if c is open.
func (c *consumer) give(tag uint64) bool {
	c.outlet.mu.Lock()
	defer c.outlet.mu.Unlock()
	if c.outlet.consumer != c {
		return false
	}
	c.given = tag
	return true
}

// confirmOp removes the messages up to one from a queue.
type confirmOp struct {
	queue   string
	batch   int
	except  []uint64 // in order
	through uint64
}

// Confirm removes the delivery with this tag and all given out before it. It
// reports [ErrNotGivenOut] for a tag that is still to come; one that has been
// confirmed already is no error.
func (c *consumer) Confirm(tag uint64) error {
	o := c.outlet
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.consumer != c {
		return broker.ErrClosed
	}
	if tag > c.given {
		return fmt.Errorf("confirm message %d of queue %s: %w", tag, c.queue, ErrNotGivenOut)
	}
	if tag <= o.confirmed {
		return nil
	}
	// Only the highest tag counts: a batch has at most one confirmation for a
	// queue, which is why confirmations need no budget.
	w := c.store.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	if o.last != nil && w.gathering(o.last.batch) {
		o.last.through = tag
	} else {
		op := &confirmOp{queue: c.queue, batch: w.number, except: slices.Sorted(maps.Keys(o.aside)), through: tag}
		if err := w.submitLocked(op); err != nil {
			return err
		}
		o.last = op
	}
	o.confirmed = tag
	return nil
}

func (o *confirmOp) apply(t *tx) error {
	if err := t.removeThrough(o.queue, o.through, o.except); err != nil && !isVerdict(err) {
		return err
	}
	return nil
}

func (o *confirmOp) settle(error) {}

// before returns confirmations of a growing part of the messages.
func (o *confirmOp) before(t *tx, most uint64) (parts []op, err error) {
	first, err := t.firstSeq(o.queue)
	if err != nil {
		return nil, err
	}
	for through := first + most; first > 0 && through < o.through; through += most {
		parts = append(parts, &confirmOp{queue: o.queue, except: o.except, through: through})
	}
	return parts, nil
}

func (o *confirmOp) needs() (kind, weight) { return upkeep, weight{} }

// SetAside moves one delivery to the messages that can not be sent. It
// reports [ErrNotGivenOut] for a message that was not given out, or is not
// there any more. When ctx ends before it is durable, it may or may not happen.
func (c *consumer) SetAside(ctx context.Context, tag uint64, reason string) error {
	settled, err := c.startSetAside(tag, reasonText(reason))
	if err == nil {
		if err = await(ctx, settled); err == nil || errors.Is(err, ErrNotGivenOut) {
			c.outlet.settled(tag)
		}
	}
	if err != nil {
		return fmt.Errorf("set aside message %d of queue %s: %w", tag, c.queue, err)
	}
	return nil
}

// Keep excludes one delivery from later confirmations. It reports
// [ErrNotGivenOut] for a message that was not given out, or is not there any
// more.
func (c *consumer) Keep(tag uint64) error {
	o := c.outlet
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := c.keep(tag); err != nil {
		return fmt.Errorf("keep message %d of queue %s: %w", tag, c.queue, err)
	}
	return nil
}

// keep is Keep. The caller holds c.outlet.mu.
func (c *consumer) keep(tag uint64) error {
	o := c.outlet
	switch {
	case o.consumer != c:
		return broker.ErrClosed
	case !o.aside[tag] && (tag <= o.confirmed || tag > c.given):
		return ErrNotGivenOut
	}
	o.aside[tag] = true
	// What is confirmed from now on must not be removed with the last
	// confirmation before, which does not except this message.
	o.last = nil
	return nil
}

func (c *consumer) startSetAside(tag uint64, reason string) (<-chan error, error) {
	o := c.outlet
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := c.keep(tag); err != nil {
		return nil, err
	}
	return c.store.start(func(t *tx) error {
		moved, err := t.setAside(c.queue, tag, reason)
		if err == nil && !moved {
			err = ErrNotGivenOut
		}
		return err
	})
}

// settled notes that a message is set aside, or not there any more.
func (o *outlet) settled(tag uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.aside, tag)
}

// Close gives what is not confirmed back to the queue. It waits a moment until
// the confirmations are durable, but they hold without that.
func (c *consumer) Close() error {
	o := c.outlet
	o.mu.Lock()
	open := o.consumer == c
	if open {
		o.consumer = nil
		close(c.closed)
	}
	o.mu.Unlock()
	if open {
		c.store.bells.remove(c.queue, c.bell)
		c.store.flush()
	}
	return nil
}
