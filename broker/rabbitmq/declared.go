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
	binding broker.PeerBinding
	epoch   int // health's epoch in which the objects were declared
}

// Bind declares the peer's queues, their dead-letter queues, the peer's exchange and the
// outgoing exchange, as far as they do not exist, and binds them. It removes the bindings
// of an earlier Bind of this process that are not in q.
func (b *Broker) Bind(ctx context.Context, q broker.PeerBinding) error {
	err := checkPeerBinding(q, b.opts.DeadLetterSuffix)
	if err == nil {
		q.Queues = slices.Clone(q.Queues)
		err = b.changeObjects(ctx, func() error {
			_, err := b.declare(ctx, q)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("declare queues of peer %s: %w", q.PeerID, err)
	}
	return nil
}

// UnbindFormer removes the bindings that connect the former queues with the peer's exchange.
// It returns those of the queues that have messages.
func (b *Broker) UnbindFormer(ctx context.Context, q broker.PeerBinding, former []string) (waiting []string, err error) {
	err = b.changeObjects(ctx, func() error {
		waiting, err = declarerResult(ctx, b, func(d declarer) ([]string, error) {
			return d.unbindFormer(peerExchange(q), former)
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("unbind former queues of peer %s: %w", q.PeerID, err)
	}
	return waiting, nil
}

// Unbind removes the binding of the peer's exchange to the exchange of outgoing messages. Both
// exchanges, the queues with their bindings, and the messages stay.
func (b *Broker) Unbind(ctx context.Context, q broker.PeerBinding) error {
	err := checkPeerBinding(q, b.opts.DeadLetterSuffix)
	if err == nil {
		err = b.changeObjects(ctx, func() error { return b.unbindObjects(ctx, q) })
	}
	if err != nil {
		return fmt.Errorf("unbind exchange of peer %s: %w", q.PeerID, err)
	}
	return nil
}

// changeObjects calls do while no other goroutine is in changeObjects: a repeated declaration
// must not restore a binding that Unbind is removing.
func (b *Broker) changeObjects(ctx context.Context, do func() error) error {
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

// declare declares the objects of a peer, and records the declaration. It returns the objects that
// it has created, also with an error. The caller is in changeObjects.
func (b *Broker) declare(ctx context.Context, q broker.PeerBinding) (created objects, err error) {
	epoch, created, err := b.declareObjects(ctx, q)
	if err != nil {
		return created, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.declared[q.PeerID] = declaration{q, epoch}
	b.keepOnce.Do(func() {
		go b.keepDeclared()
		if b.management != nil {
			go b.watchPolicies()
		}
	})
	return created, nil
}

// redeclare repeats a declaration, and logs the objects that had vanished. The caller is in
// changeObjects.
func (b *Broker) redeclare(ctx context.Context, q broker.PeerBinding) error {
	vanished, err := b.declare(ctx, q)
	b.logVanished(q, vanished) // also after an error: the next attempt finds them declared
	return err
}

// declareObjects declares the objects of a peer that do not exist. It returns the epoch in
// which they exist, and the objects that it has created, also with an error.
func (b *Broker) declareObjects(ctx context.Context, q broker.PeerBinding) (epoch int, created objects, err error) {
	before := b.lastDeclaration(q.PeerID)
	type result struct {
		epoch   int
		created objects
	}
	r, err := declarerResult(ctx, b, func(d declarer) (result, error) {
		r := result{epoch: b.health.currentEpoch()}
		d.created = &r.created
		err := d.declare(q, before)
		return r, err
	})
	return r.epoch, r.created, err
}

// unbindObjects removes the binding of the peer's exchange, and the record of the
// declaration. The caller is in changeObjects.
func (b *Broker) unbindObjects(ctx context.Context, q broker.PeerBinding) error {
	if err := b.withDeclarer(ctx, func(d declarer) error { return d.unbindPeer(q, b.lastDeclaration(q.PeerID)) }); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.declared, q.PeerID)
	return nil
}

// lastDeclaration returns what was declared for a peer last, or nil.
func (b *Broker) lastDeclaration(peerID string) *broker.PeerBinding {
	b.mu.Lock()
	defer b.mu.Unlock()
	if d, ok := b.declared[peerID]; ok {
		return &d.binding
	}
	return nil
}

// declarationOf returns the declaration for the peer of a queue, if it was made before epoch.
func (b *Broker) declarationOf(queue string, epoch int) (broker.PeerBinding, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range b.declared {
		if d.epoch < epoch && slices.Contains(d.binding.Queues, queue) {
			return d.binding, true
		}
	}
	return broker.PeerBinding{}, false
}

// redeclareFor repeats the declaration for the peer of a queue, if the declaration was made
// before epoch. It reports whether there was such a declaration.
func (b *Broker) redeclareFor(ctx context.Context, queue string, epoch int) (bool, error) {
	if _, ok := b.declarationOf(queue, epoch); !ok {
		return false, nil
	}
	found := false
	err := b.changeObjects(ctx, func() error {
		q, ok := b.declarationOf(queue, epoch) // another goroutine may have changed it meanwhile
		if !ok {
			return nil
		}
		found = true
		return b.redeclare(ctx, q)
	})
	if err != nil {
		err = fmt.Errorf("declare again: %w", err)
	}
	return found, err
}

// anyEpoch is later than all epochs: declarations of any epoch were made before it.
const anyEpoch = math.MaxInt

// restoreBindings repeats the declaration for the peer of a queue if RabbitMQ was unreachable
// since it was made. After RabbitMQ was killed, or restored from a backup, queues may exist
// without their bindings, and RabbitMQ returns all messages for them as unroutable. The queue
// can be consumed even if restoreBindings fails, so errors are only logged.
func (b *Broker) restoreBindings(ctx context.Context, queue string) {
	if _, err := b.redeclareFor(ctx, queue, b.health.currentEpoch()); err != nil && ctx.Err() == nil {
		b.log.Warn("the bindings could not be declared again after the connection to RabbitMQ was lost, some may be missing", "queue", queue, "err", err)
	}
}
