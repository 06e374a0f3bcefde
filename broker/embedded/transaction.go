package embedded

import (
	"context"
	"fmt"
)

// Transaction is what an application does in one step: either all of it is done, or nothing.
type Transaction struct {
	Messages []Sending
	Acks     []Ack
}

// Ack removes messages that are delivered to a subscription.
type Ack struct {
	Subscription *Subscription
	Seqs         []uint64 // without duplicates, also among several Acks
}

// Commit does a transaction. It blocks while too many messages of applications are not durable
// yet. If it returns nil, done is called once: with nil and what has become of each of the
// messages when everything is durable, or with an error as [Store.Send]: then nothing was stored, and
// the messages of Acks are requeued. If Commit returns an error, for example because one of the
// messages of Acks is not delivered to its subscription, done is not called, nothing was stored or
// removed, and messages of Acks may have been requeued. The caller must not modify the transaction afterwards.
func (s *Store) Commit(ctx context.Context, x Transaction, done func([]Outcome, error)) error {
	rows, size, err := s.limits.sendingRows(x.Messages)
	if err != nil {
		return err
	}
	op := &callOp{}
	if len(rows) > 0 {
		part, err := s.writer.applicationBudget.acquire(ctx, len(rows), size)
		if err != nil {
			return err
		}
		op.kind, op.part = fromApplication, part
	}
	taken, err := s.takeDelivered(x.Acks)
	if err != nil {
		s.writer.release(op)
		return fmt.Errorf("acknowledge messages: %w", err)
	}
	outcomes := make([]Outcome, len(rows))
	op.do = func(t *tx) error { return s.commitTransaction(t, x.Messages, rows, taken, outcomes) }
	op.done = func(err error) {
		if err != nil {
			s.putBack(taken)
		}
		done(outcomes, err)
	}
	if err := s.writer.submit(op); err != nil { // which has released the budget
		s.putBack(taken)
		return err
	}
	return nil
}

// sendingRows checks messages of an application, and returns their rows and the sum of their sizes.
func (l limits) sendingRows(messages []Sending) (rows []row, size int, err error) {
	rows = make([]row, len(messages))
	for i := range messages {
		if rows[i], err = l.sendingRow(&messages[i]); err != nil {
			return nil, 0, fmt.Errorf("message %d of %d: %w", i+1, len(messages), err)
		}
		size += rows[i].size()
	}
	return rows, size, nil
}

// commitTransaction stores the messages of a transaction, sets the outcomes, and removes the
// messages that were taken. Before it stores anything, it determines where each message is
// stored.
func (s *Store) commitTransaction(t *tx, messages []Sending, rows []row, acks []taken, outcomes []Outcome) error {
	places := make([]placement, len(rows))
	for i := range rows {
		var err error
		if places[i], err = s.limits.place(t, &messages[i], rows[i]); err != nil {
			return err
		}
		outcomes[i] = places[i].outcome
	}
	for _, a := range acks { // fails before anything is stored
		if _, err := t.queue(a.inbox.name); err != nil {
			return err
		}
	}
	for i := range places {
		if err := places[i].store(t); err != nil {
			return err
		}
	}
	for _, a := range acks {
		if err := t.remove(a.inbox.name, a.seqs, a.freed); err != nil {
			return err
		}
	}
	return nil
}

// taken are messages of an inbox that are neither delivered to a subscription any more, nor
// requeued, while a transaction removes them.
type taken struct {
	inbox *inbox
	seqs  []uint64
	freed map[string]int64 // see tx.remove
}

// takeDelivered takes the messages of Acks from their subscriptions. If one of them is not
// delivered to its subscription, it takes none, and requeues those that it has taken.
func (s *Store) takeDelivered(acks []Ack) ([]taken, error) {
	var all []taken
	for _, a := range acks {
		t, err := a.Subscription.take(a.Seqs)
		if err != nil {
			s.putBack(all)
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// take takes messages that are delivered to the subscription.
func (sub *Subscription) take(seqs []uint64) (taken, error) {
	if sub.err != nil {
		return taken{}, sub.err
	}
	b := sub.inbox
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := sub.checkDelivered(seqs); err != nil {
		return taken{}, err
	}
	t := taken{b, seqs, b.freedBy(seqs)}
	for _, seq := range seqs {
		delete(b.unacked, seq)
	}
	return t, nil
}

// freedBy returns, for each sending peer, the size of the messages received from it among these
// delivered ones. The caller holds b.mu.
func (b *inbox) freedBy(seqs []uint64) map[string]int64 {
	freed := make(map[string]int64)
	for _, seq := range seqs {
		if m := b.unacked[seq]; m.peer != "" {
			freed[m.peer] += m.counted
		}
	}
	return freed
}

// putBack requeues messages that were taken and not removed.
func (s *Store) putBack(all []taken) {
	for _, t := range all {
		t.inbox.mu.Lock()
		t.inbox.requeue(t.seqs)
		t.inbox.mu.Unlock()
		s.notifier.notify(t.inbox.name)
	}
}
