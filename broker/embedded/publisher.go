package embedded

import (
	"context"

	"peerlink/broker"
)

// Publish returns a publisher for a stream of received messages. Each is stored in the inbox
// with the name of its exchange, which is created with its first message. After each transaction
// with messages of this publisher, the writer calls confirmed with the number of messages of the
// publisher that are durable so far.
func (s *Store) Publish(ctx context.Context, confirmed func(n uint64, err error)) (broker.Publisher, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.life.Err() != nil {
		return nil, broker.ErrClosed
	}
	return &publisher{store: s, confirmed: confirmed}, nil
}

type publisher struct {
	store     *Store
	confirmed func(n uint64, err error)
	durable   uint64 // messages that are durable so far; used by the writer's goroutine only

	// Guarded by the writer's mutex.
	pending *publishOp // the last operation submitted: further messages are added to it
	closed  bool
}

// publishOp stores messages of one publisher.
type publishOp struct {
	publisher   *publisher
	batchNumber int // of the writer's batch that contains this operation
	rows        []row
	part        quantity // of the writer's budget, held for the rows
}

// Publish submits the next message. A message that can never be stored, such as one that is too
// large, is refused with an error and not included in the numbers passed to confirmed.
func (p *publisher) Publish(ctx context.Context, m *broker.Incoming) error {
	r, err := p.store.limits.incomingRow(m)
	if err != nil {
		return err
	}
	if err := p.store.reserve(ctx, r); err != nil {
		return err
	}
	part, err := p.store.writer.peerBudget.acquire(ctx, 1, r.size())
	if err != nil {
		p.store.quotas.settle(r)
		return err
	}
	return p.submit(r, part)
}

// submit adds a message to the pending operation, or submits a new one. part is released when
// the operation ends, or by submit if submit fails.
func (p *publisher) submit(r row, part quantity) error {
	w := p.store.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.closed {
		w.release(&publishOp{rows: []row{r}, part: part})
		return broker.ErrClosed
	}
	if p.pending != nil && w.isCollecting(p.pending.batchNumber) {
		p.pending.rows = append(p.pending.rows, r)
		p.pending.part.add(part)
		return nil
	}
	p.pending = &publishOp{publisher: p, batchNumber: w.batchNumber, rows: []row{r}, part: part}
	return w.submitLocked(p.pending)
}

// Close ends the stream. Published messages will still be stored, but confirmed is called once
// more at most: Close does not wait for a call that has begun or is about to begin.
func (p *publisher) Close() error {
	w := p.store.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	p.closed = true
	p.pending = nil
	return nil
}

func (o *publishOp) apply(t *tx) error {
	var q *queueChanges
	for _, r := range o.rows {
		if q == nil || q.name != r.message.Exchange {
			var err error
			if q, err = t.makeQueue(r.message.Exchange); err != nil {
				return err
			}
		}
		if err := t.put(q, r); err != nil {
			return err
		}
	}
	return nil
}

func (o *publishOp) cost() (kind, quantity) { return fromPeer, o.part }

func (o *publishOp) finish(err error) {
	p := o.publisher
	if err == nil {
		p.durable += uint64(len(o.rows))
	}
	w := p.store.writer
	w.mu.Lock()
	closed := p.closed
	w.mu.Unlock()
	if !closed {
		p.confirmed(p.durable, err)
	}
}
