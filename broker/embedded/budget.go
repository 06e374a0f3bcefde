package embedded

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"peerlink/broker"
)

// budget bounds the messages that are not durable yet, by number and by bytes. Waiting
// callers are served in order, so that no publisher starves.
type budget struct {
	life context.Context // context of the store; waiting callers return when it ends

	messages, bytes       *semaphore.Weighted
	used                  atomic.Int64 // bytes acquired
	maxMessages, maxBytes int64
}

// quantity is a part of the budget.
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

// acquire waits for a part of the budget. A request for more than the whole budget
// acquires the whole budget.
func (b *budget) acquire(ctx context.Context, messages, bytes int) (quantity, error) {
	w := quantity{min(int64(messages), b.maxMessages), min(int64(bytes), b.maxBytes)}
	if err := ctx.Err(); err != nil {
		return quantity{}, err
	}
	if b.life.Err() != nil {
		return quantity{}, broker.ErrClosed
	}
	if err := b.acquireOf(ctx, b.messages, w.messages); err != nil {
		return quantity{}, err
	}
	if err := b.acquireOf(ctx, b.bytes, w.bytes); err != nil {
		b.messages.Release(w.messages)
		return quantity{}, err
	}
	b.used.Add(w.bytes)
	return w, nil
}

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

func (b *budget) release(w quantity) {
	b.used.Add(-w.bytes)
	b.messages.Release(w.messages)
	b.bytes.Release(w.bytes)
}

func (w *quantity) add(x quantity) {
	w.messages += x.messages
	w.bytes += x.bytes
}
