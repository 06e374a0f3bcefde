package rabbitmq

import (
	"context"
	"fmt"
	"math"
	"slices"

	"peerlink/broker"
)

// declaration records the objects of a peer, from Bind until Unbind.
type declaration struct {
	queue broker.PeerQueue
	epoch int // health's epoch in which they were declared
}

// Bind declares the peer's queues, their dead-letter queues, the peer's exchange and the
// outgoing exchange, as far as they do not exist, and binds them. It removes the bindings
// of an earlier Bind of this process that are not in q.
func (b *Broker) Bind(ctx context.Context, q broker.PeerQueue) error {
	err := checkPeerQueue(q, b.opts.AsideSuffix)
	if err == nil {
		q.Queues = slices.Clone(q.Queues)
		err = b.changing(ctx, func() error { return b.declare(ctx, q) })
	}
	if err != nil {
		return fmt.Errorf("declare queues of peer %s: %w", q.PeerID, err)
	}
	return nil
}

// UnbindFormer removes the bindings of queues that led to a peer before.
func (b *Broker) UnbindFormer(ctx context.Context, q broker.PeerQueue, former []string) (waiting []string, err error) {
	err = b.changing(ctx, func() error {
		results := make(chan []string, 1) // see declareObjects
		err := b.onDeclaring(ctx, func(d declarer) error {
			waiting, err := d.unbindFormer(peerExchange(q), former)
			results <- waiting
			return err
		})
		if err == nil {
			waiting = <-results
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("unbind former queues of peer %s: %w", q.PeerID, err)
	}
	return waiting, nil
}

// Unbind removes the binding of the peer's exchange. The exchange, the queues, and their
// messages stay.
func (b *Broker) Unbind(ctx context.Context, q broker.PeerQueue) error {
	err := checkPeerQueue(q, b.opts.AsideSuffix)
	if err == nil {
		err = b.changing(ctx, func() error { return b.release(ctx, q) })
	}
	if err != nil {
		return fmt.Errorf("release queues of peer %s: %w", q.PeerID, err)
	}
	return nil
}

// changing serializes changes of peers' objects: a repeated declaration must not restore a
// binding that Unbind is removing.
func (b *Broker) changing(ctx context.Context, do func() error) error {
	select {
	case b.change <- struct{}{}:
		defer func() { <-b.change }()
		return do()
	case <-ctx.Done():
		return ctx.Err()
	case <-b.life.Done():
		return broker.ErrClosed
	}
}

func (b *Broker) declare(ctx context.Context, q broker.PeerQueue) error {
	epoch, _, err := b.declareObjects(ctx, q)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.declared[q.PeerID] = declaration{q, epoch}
	b.keeping.Do(func() { go b.keep() })
	return nil
}

// declareObjects declares the objects of a peer that do not exist. It returns the epoch in which they
// exist, and the names of the queues that did not exist.
func (b *Broker) declareObjects(ctx context.Context, q broker.PeerQueue) (epoch int, missing []string, err error) {
	before := b.before(q.PeerID)
	// It may still be running after onDeclaring has returned an error, so it must not
	// write to the results of make.
	type result struct {
		epoch   int
		missing []string
	}
	results := make(chan result, 1)
	err = b.onDeclaring(ctx, func(d declarer) error {
		r := result{epoch: b.health.currentEpoch()}
		d.missing = &r.missing
		err := d.declare(q, before)
		results <- r
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	r := <-results
	return r.epoch, r.missing, nil
}

func (b *Broker) release(ctx context.Context, q broker.PeerQueue) error {
	if err := b.onDeclaring(ctx, func(d declarer) error { return d.release(q, b.before(q.PeerID)) }); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.declared, q.PeerID)
	return nil
}

// before returns the last declaration for a peer, or nil.
func (b *Broker) before(peerID string) *broker.PeerQueue {
	b.mu.Lock()
	defer b.mu.Unlock()
	if d, ok := b.declared[peerID]; ok {
		return &d.queue
	}
	return nil
}

// owner returns the declaration of a queue, if it was made before epoch.
func (b *Broker) owner(queue string, epoch int) (broker.PeerQueue, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range b.declared {
		if d.epoch < epoch && slices.Contains(d.queue.Queues, queue) {
			return d.queue, true
		}
	}
	return broker.PeerQueue{}, false
}

// declareAgain repeats the declaration of a queue, if it was made before epoch. It reports
// whether there was such a declaration.
func (b *Broker) declareAgain(ctx context.Context, queue string, epoch int) (bool, error) {
	if _, ok := b.owner(queue, epoch); !ok {
		return false, nil
	}
	there := false
	err := b.changing(ctx, func() error {
		q, ok := b.owner(queue, epoch) // another goroutine may have changed it meanwhile
		if !ok {
			return nil
		}
		there = true
		return b.declare(ctx, q)
	})
	if err != nil {
		err = fmt.Errorf("declare again: %w", err)
	}
	return there, err
}

// whenever is greater than all epochs.
const whenever = math.MaxInt

// restore declares objects that RabbitMQ has lost since they were declared. After RabbitMQ
// was killed, or restored from a backup, queues may exist without their bindings, and all
// messages for them are returned. The queue can be consumed even if restore fails, so
// errors are only logged.
func (b *Broker) restore(ctx context.Context, queue string) {
	if _, err := b.declareAgain(ctx, queue, b.health.currentEpoch()); err != nil && ctx.Err() == nil {
		b.log.Warn("bindings may be missing in RabbitMQ since it was lost", "queue", queue, "err", err)
	}
}
