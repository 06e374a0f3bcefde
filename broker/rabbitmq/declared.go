package rabbitmq

import (
	"context"
	"fmt"
	"math"
	"slices"

	"peerlink/broker"
)

// declaration is what Declare has made for a peer, and Release has not taken
// back.
type declaration struct {
	queue broker.PeerQueue
	era   int // of RabbitMQ in which it was made, see health
}

// Bind makes what is missing of the peer's queues, their dead-letter
// queues, the peer's exchange and the outgoing exchange, and binds them. It
// removes the bindings that an earlier Declare has made, in this process, and
// that are not among these.
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

// Unbind removes the binding that leads to the peer's exchange. The exchange,
// the queues, and the messages in them stay.
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

// changing runs a change of the objects of a peer. They come one after the
// other: what is declared again meanwhile must not bind what was released.
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
	era, _, err := b.make(ctx, q)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.declared[q.PeerID] = declaration{q, era}
	b.keeping.Do(func() { go b.keep() })
	return nil
}

// make makes what is missing of a peer's objects. It returns the era of RabbitMQ in
// which they are there, and the names of the queues that were missing.
func (b *Broker) make(ctx context.Context, q broker.PeerQueue) (era int, missing []string, err error) {
	before := b.before(q.PeerID)
	// It runs on, with what it was given, when nobody waits for it any more.
	type result struct {
		era     int
		missing []string
	}
	results := make(chan result, 1)
	err = b.onDeclaring(ctx, func(d declarer) error {
		r := result{era: b.health.currentEra()}
		d.missing = &r.missing
		err := d.declare(q, before)
		results <- r
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	r := <-results
	return r.era, r.missing, nil
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

// before returns what was declared last for a peer.
func (b *Broker) before(peerID string) *broker.PeerQueue {
	b.mu.Lock()
	defer b.mu.Unlock()
	if d, ok := b.declared[peerID]; ok {
		return &d.queue
	}
	return nil
}

// owner returns what was declared with a queue, in an era before this one.
func (b *Broker) owner(queue string, era int) (broker.PeerQueue, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range b.declared {
		if d.era < era && slices.Contains(d.queue.Queues, queue) {
			return d.queue, true
		}
	}
	return broker.PeerQueue{}, false
}

// declareAgain declares again what was declared with a queue, in an era before
// this one. It reports whether there was something to declare.
func (b *Broker) declareAgain(ctx context.Context, queue string, era int) (bool, error) {
	if _, ok := b.owner(queue, era); !ok {
		return false, nil
	}
	there := false
	err := b.changing(ctx, func() error {
		q, ok := b.owner(queue, era) // it may have been released, or declared, meanwhile
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

// whenever is after all eras.
const whenever = math.MaxInt

// restore makes what RabbitMQ has lost since a queue was declared. When it was
// killed, or restored from a backup, queues may be there without their bindings,
// and all that is sent to them is returned. It is no reason not to empty the
// queue that this does not work.
func (b *Broker) restore(ctx context.Context, queue string) {
	if _, err := b.declareAgain(ctx, queue, b.health.currentEra()); err != nil && ctx.Err() == nil {
		b.log.Warn("bindings may be missing in RabbitMQ since it was lost", "queue", queue, "err", err)
	}
}
