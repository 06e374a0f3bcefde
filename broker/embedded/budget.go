package embedded

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"peerlink/broker"
)

// budget bounds the messages that are not durable yet, by number and by bytes. Callers that
// wait for a part of the budget get it in order, so that none waits for ever.
type budget struct {
	life context.Context // context of the store; waiting callers return when it ends

	messages, bytes       *semaphore.Weighted
	used                  atomic.Int64 // bytes acquired
	maxMessages, maxBytes int64
}

// quantity is a part of a budget: a number of messages, and their size in bytes, but no more of
// each than the whole budget has.
type quantity struct {
	messages, bytes int64
}

func newBudget(life context.Context, messages, bytes int) *budget {
	return &budget{
		life:        life,
		messages:    semaphore.NewWeighted(int64(messages)),
		bytes:       semaphore.NewWeighted(int64(bytes)),
		maxMessages: int64(messages),
		maxBytes:    int64(bytes),
	}
}

// acquire waits for a part of the budget, and returns it, to be passed to release. A request
// for more than the whole budget acquires the whole budget.
func (b *budget) acquire(ctx context.Context, messages, bytes int) (quantity, error) {
	q := quantity{min(int64(messages), b.maxMessages), min(int64(bytes), b.maxBytes)}
	if err := ctx.Err(); err != nil {
		return quantity{}, err
	}
	if b.life.Err() != nil {
		return quantity{}, broker.ErrClosed
	}
	if err := b.acquireOf(ctx, b.messages, q.messages); err != nil {
		return quantity{}, err
	}
	if err := b.acquireOf(ctx, b.bytes, q.bytes); err != nil {
		b.messages.Release(q.messages)
		return quantity{}, err
	}
	b.used.Add(q.bytes)
	return q, nil
}

// acquireOf acquires n from one of the two semaphores.
func (b *budget) acquireOf(ctx context.Context, s *semaphore.Weighted, n int64) error {
	if s.TryAcquire(n) {
		return nil
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.life, cancel)()
	if err := s.Acquire(waiting, n); err != nil {
		if b.life.Err() != nil {
			return broker.ErrClosed
		}
		return ctx.Err()
	}
	return nil
}

func (b *budget) release(q quantity) {
	b.used.Add(-q.bytes)
	b.messages.Release(q.messages)
	b.bytes.Release(q.bytes)
}

func (q *quantity) add(x quantity) {
	q.messages += x.messages
	q.bytes += x.bytes
}
