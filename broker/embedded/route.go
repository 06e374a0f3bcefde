package embedded

import (
	"context"
	"errors"
	"fmt"

	"peerlink/broker"
	"peerlink/internal/topic"
)

// Bind creates the first of the peer's queues, and binds the queue to the exchange in place
// of the peer's previous binding. Bind returns when the binding is durable. If that is so already,
// Bind needs no space on the disk.
func (s *Store) Bind(ctx context.Context, q broker.PeerBinding) error {
	if err := checkPeerBinding(q); err != nil {
		return fmt.Errorf("bind queue of peer %s: %w", q.PeerID, err)
	}
	if s.isBound(ctx, q) {
		return nil
	}
	if err := s.commitRoute(ctx, func(t *tx) error { return t.bindPeer(q) }); err != nil {
		return fmt.Errorf("bind queue of peer %s: %w", q.PeerID, err)
	}
	return nil
}

// Unbind removes the binding of the peer's queue to the exchange. The queue and its
// messages stay. Unbind returns when the removal is durable.
func (s *Store) Unbind(ctx context.Context, q broker.PeerBinding) error {
	if err := s.commitRoute(ctx, func(t *tx) error { return t.unbindPeer(q.PeerID) }); err != nil {
		return fmt.Errorf("unbind queue of peer %s: %w", q.PeerID, err)
	}
	return nil
}

// commitRoute is commit for a change of the bindings.
func (s *Store) commitRoute(ctx context.Context, do func(*tx) error) error {
	s.routeChanges.Add(1)
	settled := make(chan error, 1)
	err := s.writer.submit(&callOp{do: do, done: func(err error) {
		s.routeChanges.Add(-1)
		settled <- err
	}})
	if err != nil {
		s.routeChanges.Add(-1)
		return err
	}
	return await(ctx, settled)
}

// isBound reports whether the peer's first queue exists and is bound as described by q, and this
// store has no change of bindings in progress, which could be another one of the peer. If that can
// not be read, it reports false.
func (s *Store) isBound(ctx context.Context, q broker.PeerBinding) bool {
	if s.routeChanges.Load() > 0 {
		return false
	}
	var n int64
	err := s.readers.use(ctx, func(r *readConn) (err error) {
		n, err = r.bound.number(q.PeerID, q.Exchange, q.BindingKey, q.Fanout, q.Queues[0])
		return err
	})
	return err == nil && n > 0
}

func checkPeerBinding(q broker.PeerBinding) error {
	if err := checkName("peer ID", q.PeerID); err != nil {
		return err
	}
	if err := checkName("exchange", q.Exchange); err != nil {
		return err
	}
	if len(q.Queues) == 0 {
		return fmt.Errorf("%w: no queue is named", errInvalid)
	}
	if err := checkName("queue", q.Queues[0]); err != nil {
		return err
	}
	if q.Fanout && q.BindingKey != "" {
		return fmt.Errorf("%w: binding key %q for a fanout exchange, which has none", errInvalid, q.BindingKey)
	}
	return checkBindingKey(q.BindingKey)
}

func checkBindingKey(key string) error {
	if err := checkText("binding key", key); err != nil {
		return err
	}
	if err := topic.CheckKey(key); err != nil {
		return fmt.Errorf("%w: %w", errInvalid, err)
	}
	return nil
}

// Put appends a message to a queue, without routing, and returns when it is durable. It
// returns [broker.ErrNoQueue] if the queue does not exist, [ErrFull] if there is no space, and
// [ErrUnwritable] if the store can not be written. If ctx ends before the message is written,
// nothing is stored; if it ends while it is being written, Put waits for the result, however long
// the disk takes. The caller must not modify m.Body afterwards.
func (s *Store) Put(ctx context.Context, queue string, m broker.Outgoing) error {
	return s.PutAll(ctx, queue, []broker.Outgoing{m})
}

// errWithdrawn is the error of messages whose context has ended before they were written.
var errWithdrawn = errors.New("not written")

// PutAll is [Store.Put] for several messages: either all of them are stored, in order, or no
// message is stored.
func (s *Store) PutAll(ctx context.Context, queue string, messages []broker.Outgoing) error {
	if len(messages) == 0 {
		return nil
	}
	rows := make([]row, len(messages))
	size := 0
	for i, m := range messages {
		var err error
		if rows[i], err = s.limits.outgoingRow("", m); err != nil {
			return fmt.Errorf("put into queue %s: message %d of %d: %w", queue, i+1, len(messages), err)
		}
		size += rows[i].size()
	}
	if err := s.disk.checkRoom(fromApplication, int64(size)); err != nil {
		return fmt.Errorf("put into queue %s: %w", queue, err)
	}
	part, err := s.writer.applicationBudget.acquire(ctx, len(rows), size)
	if err != nil {
		return fmt.Errorf("put into queue %s: %w", queue, err)
	}
	err = s.commitOp(context.WithoutCancel(ctx), callOp{kind: fromApplication, part: part, do: func(t *tx) error {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", errWithdrawn, err)
		}
		q, err := t.queue(queue)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := t.put(q, r); err != nil {
				return err
			}
		}
		return nil
	}})
	if err != nil {
		return fmt.Errorf("put into queue %s: %w", queue, err)
	}
	return nil
}
