package embedded

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"peerlink/broker"
	"peerlink/internal/wait"
)

// inbox is what is given out of an inbox, and to whom. It outlives its
// subscriptions, since acknowledged messages may still be on their way out of
// the file.
type inbox struct {
	name string
	turn ctxMutex // to read from the file
	old  uint64   // messages up to this one may have been given out before the store was opened

	mu       sync.Mutex
	read     uint64          // the last message read from the file for the first time
	returned []uint64        // given back, in order
	out      map[uint64]held // given out
	subs     map[*Subscription]struct{}
}

// held is a message that was given out.
type held struct {
	by   *Subscription
	peer string // who has sent it
	size int
}

func (b *inbox) subscribed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subs) > 0
}

// InboxMessage is a message given out to a [Subscription].
type InboxMessage struct {
	Seq uint64 // for Ack and Nack
	// ID names this message, and never names another one: not in another inbox
	// or store, nor after an older state of this store was restored. A message
	// that is given out again keeps it.
	ID string
	// Redelivered says that the message may have been given out before. A
	// message that was in the inbox when the store was opened may have been.
	Redelivered bool
	broker.Incoming
}

// Subscription takes messages out of an inbox for one application. The
// subscriptions of an inbox compete: each message is given to one of them.
// What a subscription holds is bounded by what it asks for: take no more from
// Next than you are ready to hold.
type Subscription struct {
	store   *Store
	inbox   *inbox
	arrived wait.Signal
	closed  chan struct{}
	err     error // why it never worked
}

// Subscribe opens an inbox, which is named by its exchange ("accounts_in"…)
// and need not exist yet. While a consumer has the queue of this name, Next
// reports [ErrInUse].
func (s *Store) Subscribe(name string) *Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := &Subscription{store: s, arrived: wait.NewSignal(), closed: make(chan struct{})}
	if s.hasConsumer(name) {
		sub.err = fmt.Errorf("subscribe to %s: %w by a consumer", name, ErrInUse)
		return sub
	}
	b := s.inboxes[name]
	if b == nil {
		b = &inbox{
			name: name,
			turn: newCtxMutex(),
			old:  s.old[name],
			out:  make(map[uint64]held),
			subs: make(map[*Subscription]struct{}),
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

// Next waits until there is a message that no subscription holds, and returns
// up to max, of about 1 MiB together. Messages that were given back come
// first.
func (sub *Subscription) Next(ctx context.Context, max int) ([]InboxMessage, error) {
	if sub.err != nil {
		return nil, sub.err
	}
	if max < 1 {
		return nil, fmt.Errorf("%w: %d messages wanted, expected at least 1", ErrInvalid, max)
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

// take gives out what is there now.
func (sub *Subscription) take(ctx context.Context, limit int) ([]InboxMessage, error) {
	b := sub.inbox
	if err := b.turn.lock(ctx, sub.closed); err != nil {
		return nil, err
	}
	defer b.turn.unlock()
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
	// Others may have given back more meanwhile, anywhere in the order.
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

// Ack removes messages that this subscription holds. If it returns nil, done
// (which may be nil) is called once: with nil when that is durable, with
// [broker.ErrClosed] if the store was closed before. It reports
// [ErrNotGivenOut], and does nothing, if one of the messages is not held.
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

// Nack gives messages that this subscription holds back to the inbox, for any
// subscription. It reports [ErrNotGivenOut], and does nothing, if one of them
// is not held.
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

// Close gives back everything that is not acknowledged. It waits a moment
// until the acknowledgements are durable, but they hold without that.
func (sub *Subscription) Close() error {
	if sub.err != nil || !sub.leave() {
		return nil
	}
	sub.store.notifier.remove(sub.inbox.name, sub.arrived)
	sub.store.notifier.notify(sub.inbox.name)
	sub.store.flush()
	return nil
}

// leave takes the subscription and what it holds out of the books. It tells
// whether it was open.
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
		delete(s.inboxes, b.name) // nothing to remember: anyone can name an inbox
	}
	return true
}

// holds checks that the subscription is open and holds the messages. The
// caller holds inbox.mu.
func (sub *Subscription) holds(seqs []uint64) error {
	b := sub.inbox
	if _, open := b.subs[sub]; !open {
		return broker.ErrClosed
	}
	for _, seq := range seqs {
		if b.out[seq].by != sub {
			return fmt.Errorf("message %d of %s: %w to this subscription", seq, b.name, ErrNotGivenOut)
		}
	}
	return nil
}

// giveBack moves messages from out to returned. The caller holds inbox.mu.
func (b *inbox) giveBack(seqs []uint64) {
	for _, seq := range seqs {
		delete(b.out, seq)
	}
	b.returned = append(b.returned, seqs...)
	slices.Sort(b.returned)
	b.returned = slices.Compact(b.returned)
}
