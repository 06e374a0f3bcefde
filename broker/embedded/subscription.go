package embedded

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"peerlink/broker"
	"peerlink/internal/sorted"
	"peerlink/internal/wait"
)

// inbox records which messages of an inbox are delivered and not acknowledged, and to which
// subscription. It outlives its subscriptions, since the removal of acknowledged messages
// may not be durable yet: lastRead keeps them from being read again.
type inbox struct {
	name   string
	readMu ctxMutex // held while messages are read from the file
	// lastSeqAtOpen is the last sequence number when the store was opened: messages up to it may
	// have been delivered before.
	lastSeqAtOpen uint64

	mu       sync.Mutex
	lastRead uint64                    // sequence number of the last message that was read from the file, in order
	requeued []uint64                  // sequence numbers of messages to be delivered again, sorted; not in unacked
	unacked  map[uint64]unackedMessage // by sequence number: delivered, and not acknowledged or requeued
	subs     map[*Subscription]struct{}
}

// unackedMessage is a message that is delivered to a subscription.
type unackedMessage struct {
	sub     *Subscription
	peer    string // ID of the sending peer
	counted int64  // its part of the peer's usage, in bytes
}

func (b *inbox) subscribed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subs) > 0
}

// InboxMessage is a message delivered to a [Subscription].
type InboxMessage struct {
	Seq uint64 // for Ack and Nack
	// ID identifies this message, and never another message of an inbox with this name: not
	// in another store, nor after an older state of this store was restored. It is the same
	// if the message is delivered again.
	ID string
	// Redelivered reports whether the message may have been delivered before. This is the
	// case for all messages that were in the inbox when the store was opened.
	Redelivered bool
	broker.Incoming
}

// Subscription consumes messages of an inbox for one application. The subscriptions of an
// inbox compete: each message is delivered to one of them. Only the caller bounds the number
// of unacknowledged messages, by what it requests with Next.
type Subscription struct {
	store   *Store
	inbox   *inbox
	arrived wait.Signal
	closed  chan struct{}
	err     error // why Subscribe failed; nil if it did not
}

// Subscribe opens an inbox, which has the name of its exchange ("accounts_in", ...) and
// need not exist yet. If the queue of this name has a consumer of this Store, Next, Ack and
// Nack return [broker.ErrInUse].
func (s *Store) Subscribe(name string) *Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := &Subscription{store: s, arrived: wait.NewSignal(), closed: make(chan struct{})}
	if s.hasConsumer(name) {
		sub.err = fmt.Errorf("subscribe to %s: %w: it has a consumer", name, broker.ErrInUse)
		return sub
	}
	b := s.inboxes[name]
	if b == nil {
		b = &inbox{
			name:          name,
			readMu:        newCtxMutex(),
			lastSeqAtOpen: s.lastSeqsAtOpen[name],
			unacked:       make(map[uint64]unackedMessage),
			subs:          make(map[*Subscription]struct{}),
		}
		s.inboxes[name] = b
	}
	sub.inbox = b
	b.mu.Lock()
	b.subs[sub] = struct{}{}
	b.mu.Unlock()
	s.notifier.add(name, sub.arrived, nil)
	return sub
}

// Next waits until the inbox has a message that is not delivered to a subscription,
// delivers up to limit such messages, of about 1 MiB in total, to this subscription, and
// returns them. Requeued messages come first, in a batch of their own.
func (sub *Subscription) Next(ctx context.Context, limit int) ([]InboxMessage, error) {
	if sub.err != nil {
		return nil, sub.err
	}
	if limit < 1 {
		return nil, fmt.Errorf("%w: %d messages requested, expected at least 1", errInvalid, limit)
	}
	for {
		found, err := sub.deliverAvailable(ctx, limit)
		if err != nil || len(found) > 0 {
			return found, err
		}
		if err := sub.store.waitFor(ctx, sub.arrived, sub.closed); err != nil {
			return nil, err
		}
	}
}

// deliverAvailable delivers up to limit messages that are available now, and returns them. It
// does not wait for messages.
func (sub *Subscription) deliverAvailable(ctx context.Context, limit int) ([]InboxMessage, error) {
	b := sub.inbox
	if err := b.readMu.lock(ctx, sub.closed); err != nil {
		return nil, err
	}
	defer b.readMu.unlock()
	b.mu.Lock()
	read := b.lastRead
	requeued := slices.Clone(b.requeued[:min(limit, len(b.requeued))])
	b.mu.Unlock()

	var found []Message
	lookedUp := 0
	err := sub.store.read(ctx, "read messages of inbox "+b.name, func(r *readConn) (err error) {
		if len(requeued) > 0 {
			found, lookedUp, err = r.readSeqs(b.name, requeued)
		}
		if err == nil && len(found) == 0 {
			found, err = r.readMessages(b.name, read, limit)
		}
		return err
	})
	if err != nil {
		return nil, err
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	if _, open := b.subs[sub]; !open {
		return nil, broker.ErrClosed
	}
	// Other messages may have been requeued meanwhile, at any position.
	b.requeued = slices.DeleteFunc(b.requeued, func(seq uint64) bool {
		_, read := slices.BinarySearch(requeued[:lookedUp], seq)
		return read
	})
	delivered := make([]InboxMessage, len(found))
	for i, m := range found {
		delivered[i] = InboxMessage{Seq: m.Seq, ID: m.ID, Redelivered: m.Seq <= b.lastRead || m.Seq <= b.lastSeqAtOpen, Incoming: m.Incoming(b.name)}
		b.unacked[m.Seq] = unackedMessage{sub, m.Peer, m.counted}
	}
	if n := len(found); n > 0 {
		b.lastRead = max(b.lastRead, found[n-1].Seq)
	}
	return delivered, nil
}

// Ack removes messages that are delivered to this subscription. If it returns nil, done
// (which may be nil) is called once: with nil when the removal is durable, with
// [broker.ErrClosed] if the store was closed before. If one of the messages is not
// delivered to this subscription, Ack returns an error and removes none. seqs must not have
// duplicates.
func (sub *Subscription) Ack(seqs []uint64, done func(error)) error {
	if sub.err != nil {
		return sub.err
	}
	seqs = slices.Clone(seqs)
	b := sub.inbox
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := sub.checkDelivered(seqs); err != nil {
		return fmt.Errorf("acknowledge messages: %w", err)
	}
	freed := b.freedBy(seqs)
	remove := func(t *tx) error { return t.remove(b.name, seqs, freed) }
	if err := sub.store.writer.submit(&callOp{do: remove, done: done}); err != nil {
		return err
	}
	for _, seq := range seqs {
		delete(b.unacked, seq)
	}
	return nil
}

// Nack requeues messages that are delivered to this subscription: they will be delivered
// again, to any subscription. If one of them is not delivered to this subscription, Nack
// returns an error and requeues none.
func (sub *Subscription) Nack(seqs []uint64) error {
	if sub.err != nil {
		return sub.err
	}
	b := sub.inbox
	b.mu.Lock()
	err := sub.checkDelivered(seqs)
	if err == nil {
		b.requeue(seqs)
	}
	b.mu.Unlock()
	if err != nil {
		return fmt.Errorf("requeue messages: %w", err)
	}
	sub.store.notifier.notify(b.name)
	return nil
}

// Close requeues unacknowledged messages. Acknowledgements remain valid; Close waits for up
// to two seconds until they are durable.
func (sub *Subscription) Close() error {
	if sub.err != nil || !sub.detach() {
		return nil
	}
	sub.store.notifier.remove(sub.inbox.name, sub.arrived)
	sub.store.notifier.notify(sub.inbox.name)
	sub.store.flush()
	return nil
}

// detach removes the subscription from the inbox and requeues its messages. It reports
// whether the subscription was open.
func (sub *Subscription) detach() bool {
	s, b := sub.store, sub.inbox
	s.mu.Lock()
	defer s.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, open := b.subs[sub]; !open {
		return false
	}
	delete(b.subs, sub)
	close(sub.closed)
	var mine []uint64
	for seq, m := range b.unacked {
		if m.sub == sub {
			mine = append(mine, seq)
		}
	}
	b.requeue(mine)
	if len(b.subs) == 0 && b.lastRead == 0 {
		delete(s.inboxes, b.name) // no state to keep; inboxes of any name can be subscribed to
	}
	return true
}

// checkDelivered returns an error if the subscription is closed, or if one of the messages
// is not delivered to it. The caller holds sub.inbox.mu.
func (sub *Subscription) checkDelivered(seqs []uint64) error {
	b := sub.inbox
	if _, open := b.subs[sub]; !open {
		return broker.ErrClosed
	}
	for _, seq := range seqs {
		if b.unacked[seq].sub != sub {
			return fmt.Errorf("message %d of %s: %w", seq, b.name, errNotDelivered)
		}
	}
	return nil
}

// requeue moves messages from b.unacked to b.requeued. It takes time proportional to the number of
// all requeued messages, with a logarithm only for those of seqs. The caller holds b.mu.
func (b *inbox) requeue(seqs []uint64) {
	for _, seq := range seqs {
		delete(b.unacked, seq)
	}
	b.requeued = slices.Compact(sorted.Merge(b.requeued, slices.Sorted(slices.Values(seqs)), cmp.Compare[uint64]))
}
