package embedded

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"peerlink/broker"
	"peerlink/internal/wait"
)

// inbox records which messages of an inbox are delivered, and to which subscription. It
// outlives its subscriptions, since the removal of acknowledged messages may not be
// durable yet.
type inbox struct {
	name   string
	readMu ctxMutex // held while messages are read from the file
	old    uint64   // messages up to this one may have been delivered before the store was opened

	mu       sync.Mutex
	read     uint64          // the last message that was read from the file
	returned []uint64        // given back by subscriptions; sorted
	out      map[uint64]held // delivered
	subs     map[*Subscription]struct{}
}

// held is a delivered message.
type held struct {
	by   *Subscription
	peer string // ID of the sending peer
	size int
}

func (b *inbox) subscribed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subs) > 0
}

// InboxMessage is a message delivered to a [Subscription].
type InboxMessage struct {
	Seq uint64 // for Ack and Nack
	// ID identifies this message, and never another message: not in another inbox or
	// store, nor after an older state of this store was restored. It is the same if the
	// message is delivered again.
	ID string
	// Redelivered reports whether the message may have been delivered before. This is the
	// case for all messages that were in the inbox when the store was opened.
	Redelivered bool
	broker.Incoming
}

// Subscription consumes messages of an inbox for one application. The subscriptions of an
// inbox compete: each message is delivered to one of them. There is no other bound on
// unacknowledged messages than the max of Next: request no more than you can hold.
type Subscription struct {
	store   *Store
	inbox   *inbox
	arrived wait.Signal
	closed  chan struct{}
	err     error // why Subscribe failed; nil if it did not
}

// Subscribe opens an inbox, which has the name of its exchange ("accounts_in", ...) and
// need not exist yet. If the queue of this name has a consumer, Next reports [broker.ErrInUse].
func (s *Store) Subscribe(name string) *Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := &Subscription{store: s, arrived: wait.NewSignal(), closed: make(chan struct{})}
	if s.hasConsumer(name) {
		sub.err = fmt.Errorf("subscribe to %s: %w by a consumer", name, broker.ErrInUse)
		return sub
	}
	b := s.inboxes[name]
	if b == nil {
		b = &inbox{
			name:   name,
			readMu: newCtxMutex(),
			old:    s.old[name],
			out:    make(map[uint64]held),
			subs:   make(map[*Subscription]struct{}),
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

// Next waits until there is a message that is delivered to no subscription, and returns up
// to max of them, of about 1 MiB in total, returned messages first.
func (sub *Subscription) Next(ctx context.Context, max int) ([]InboxMessage, error) {
	if sub.err != nil {
		return nil, sub.err
	}
	if max < 1 {
		return nil, fmt.Errorf("%w: %d messages wanted, expected at least 1", errInvalid, max)
	}
	for {
		found, err := sub.take(ctx, max)
		if err != nil || len(found) > 0 {
			return found, err
		}
		if err := sub.store.waitFor(ctx, sub.arrived, sub.closed); err != nil {
			return nil, err
		}
	}
}

// take delivers the messages that are available now, without waiting for more.
func (sub *Subscription) take(ctx context.Context, limit int) ([]InboxMessage, error) {
	b := sub.inbox
	if err := b.readMu.lock(ctx, sub.closed); err != nil {
		return nil, err
	}
	defer b.readMu.unlock()
	b.mu.Lock()
	read := b.read
	returned := slices.Clone(b.returned[:min(limit, len(b.returned))])
	b.mu.Unlock()

	var found []Message
	looked := 0
	err := sub.store.read(ctx, "take messages out of "+b.name, func(r *readConn) (err error) {
		if len(returned) > 0 {
			found, looked, err = r.readThese(b.name, returned)
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
	// Other messages may have been returned meanwhile, at any position.
	b.returned = slices.DeleteFunc(b.returned, func(seq uint64) bool {
		_, here := slices.BinarySearch(returned[:looked], seq)
		return here
	})
	given := make([]InboxMessage, len(found))
	for i, m := range found {
		given[i] = InboxMessage{Seq: m.Seq, ID: m.ID, Redelivered: m.Seq <= b.read || m.Seq <= b.old, Incoming: m.incoming(b.name)}
		b.out[m.Seq] = held{sub, m.Peer, m.size}
	}
	if n := len(found); n > 0 {
		b.read = max(b.read, found[n-1].Seq)
	}
	return given, nil
}

// Ack removes messages that are delivered to this subscription. If it returns nil, done
// (which may be nil) is called once: with nil when the removal is durable, with
// [broker.ErrClosed] if the store was closed before. Ack reports [errNotGivenOut], and
// does nothing, if one of the messages is not delivered to this subscription.
func (sub *Subscription) Ack(seqs []uint64, done func(error)) error {
	if sub.err != nil {
		return sub.err
	}
	seqs = slices.Clone(seqs)
	b := sub.inbox
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := sub.holds(seqs); err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	freed := make(map[string]int64)
	for _, seq := range seqs {
		if h := b.out[seq]; h.peer != "" {
			freed[h.peer] += int64(h.size)
		}
	}
	remove := func(t *tx) error { return t.remove(b.name, seqs, freed) }
	if err := sub.store.writer.submit(&callOp{do: remove, done: done}); err != nil {
		return err
	}
	for _, seq := range seqs {
		delete(b.out, seq)
	}
	return nil
}

// Nack returns messages that are delivered to this subscription to the inbox, for delivery
// to any subscription. It reports [errNotGivenOut], and does nothing, if one of them is
// not delivered to this subscription.
func (sub *Subscription) Nack(seqs []uint64) error {
	if sub.err != nil {
		return sub.err
	}
	b := sub.inbox
	b.mu.Lock()
	err := sub.holds(seqs)
	if err == nil {
		b.giveBack(seqs)
	}
	b.mu.Unlock()
	if err != nil {
		return fmt.Errorf("give back: %w", err)
	}
	sub.store.notifier.notify(b.name)
	return nil
}

// Close returns unacknowledged messages to the inbox. It waits up to flushTime until the
// acknowledgements are durable; they are valid without that.
func (sub *Subscription) Close() error {
	if sub.err != nil || !sub.leave() {
		return nil
	}
	sub.store.notifier.remove(sub.inbox.name, sub.arrived)
	sub.store.notifier.notify(sub.inbox.name)
	sub.store.flush()
	return nil
}

// leave removes the subscription and returns its messages to the inbox. It reports whether
// the subscription was open.
func (sub *Subscription) leave() bool {
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
	for seq, h := range b.out {
		if h.by == sub {
			mine = append(mine, seq)
		}
	}
	b.giveBack(mine)
	if len(b.subs) == 0 && b.read == 0 {
		delete(s.inboxes, b.name) // no state to keep; inboxes of any name can be subscribed to
	}
	return true
}

// holds checks that the subscription is open and that the messages are delivered to it.
// The caller holds inbox.mu.
func (sub *Subscription) holds(seqs []uint64) error {
	b := sub.inbox
	if _, open := b.subs[sub]; !open {
		return broker.ErrClosed
	}
	for _, seq := range seqs {
		if b.out[seq].by != sub {
			return fmt.Errorf("message %d of %s: %w to this subscription", seq, b.name, errNotGivenOut)
		}
	}
	return nil
}

// giveBack moves messages from out to returned. The caller holds b.mu.
func (b *inbox) giveBack(seqs []uint64) {
	for _, seq := range seqs {
		delete(b.out, seq)
	}
	b.returned = append(b.returned, seqs...)
	slices.Sort(b.returned)
	b.returned = slices.Compact(b.returned)
}
