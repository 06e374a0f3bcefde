package local

import (
	"strings"

	"peerlink/broker/embedded"
	"peerlink/stomp"
)

// transaction holds what a client has sent and acknowledged between BEGIN and COMMIT. It is used by
// the goroutine that reads frames.
type transaction struct {
	sends []embedded.Sending
	acks  map[*subscription]*transactionAcks
	// ended names the last subscription that has ended after the transaction had acknowledged messages
	// of it; "" if there is none.
	ended string
}

// transactionAcks are the messages of a subscription that a transaction acknowledges. They count
// against the prefetch-count of the subscription, which bounds them: when the subscription ends,
// they are dropped from the transaction.
type transactionAcks struct {
	removed  []held
	requeued []held // of a NACK: the messages are returned to the inbox, not removed
}

// transactions are the open transactions of a session, by name.
type transactions struct {
	open        map[string]*transaction
	sends, size int // number of the messages in all of them, and their size in bytes (see sizeOf)
}

// begin opens a transaction (BEGIN).
func (s *session) begin(f *stomp.Frame, op *operation) error {
	name, err := required(f, "transaction")
	if err != nil {
		return err
	}
	switch {
	case s.transactions.open[name] != nil:
		return refusef("BEGIN of %.100q, which is a transaction of this connection already", name)
	case len(s.transactions.open) == s.door.bounds.transactions:
		return refusef("BEGIN: this connection has %d open transactions, which is the limit", len(s.transactions.open))
	}
	s.transactions.open[strings.Clone(name)] = &transaction{acks: make(map[*subscription]*transactionAcks)}
	op.done(nil)
	return nil
}

// endTransaction removes the transaction of a COMMIT or ABORT, and returns it.
func (s *session) endTransaction(f *stomp.Frame) (*transaction, error) {
	name, err := required(f, "transaction")
	if err != nil {
		return nil, err
	}
	t, err := s.transaction(f.Command, name)
	if err != nil {
		return nil, err
	}
	delete(s.transactions.open, name)
	s.transactions.sends -= len(t.sends)
	s.transactions.size -= t.size()
	return t, nil
}

// transaction returns the open transaction with a name. command is for the error if there is none.
func (s *session) transaction(command, name string) (*transaction, error) {
	t := s.transactions.open[name]
	if t == nil {
		return nil, refusef("%s: this connection has no transaction %.100q: expected BEGIN first", command, name)
	}
	return t, nil
}

// size returns the size of the messages of a transaction in bytes (see sizeOf).
func (t *transaction) size() (size int) {
	for i := range t.sends {
		size += sizeOf(&t.sends[i])
	}
	return size
}

// sizeOf returns about how many bytes of memory a message takes.
func sizeOf(m *embedded.Sending) int {
	return len(m.Body) + len(m.RoutingKey) + len(m.Invalid) + 500
}

// addToTransaction adds a SEND, ACK or NACK to the transaction that it names. A SEND is checked, and
// refused, at once.
func (s *session) addToTransaction(f *stomp.Frame, name string, op *operation) error {
	t, err := s.transaction(f.Command, name)
	if err != nil {
		return err
	}
	switch f.Command {
	case "SEND":
		err = s.addSend(t, f)
	case "ACK":
		err = s.addAck(t, f, false)
	case "NACK":
		var requeue bool
		if requeue, err = requeues(f); err == nil {
			err = s.addAck(t, f, requeue)
		}
	default:
		err = refusef("%s in a transaction: only SEND, ACK and NACK can be", f.Command)
	}
	if err == nil {
		op.done(nil)
	}
	return err
}

// addSend adds the message of a SEND to a transaction.
func (s *session) addSend(t *transaction, f *stomp.Frame) error {
	m, err := s.sending(f)
	if err != nil {
		s.door.counts[refused].Add(1)
		return err
	}
	all := &s.transactions
	if all.sends == s.door.bounds.transactionSends || all.size+sizeOf(&m) > s.door.bounds.transactionBytes {
		return refusef("SEND in a transaction: the open transactions of a connection may have at most %d messages, and %d bytes of messages and their overhead, in total: send fewer messages in a transaction",
			s.door.bounds.transactionSends, s.door.bounds.transactionBytes)
	}
	all.sends++
	all.size += sizeOf(&m)
	t.sends = append(t.sends, m)
	return nil
}

// addAck adds the messages of an ACK or NACK to a transaction. requeue is whether they are to be returned to
// the inbox.
func (s *session) addAck(t *transaction, f *stomp.Frame, requeue bool) error {
	sub, messages, err := s.takeUnacked(f)
	if err != nil {
		return err
	}
	acks := t.acks[sub]
	if acks == nil {
		acks = &transactionAcks{}
		t.acks[sub] = acks
	}
	if requeue {
		acks.requeued = append(acks.requeued, messages...)
	} else {
		acks.removed = append(acks.removed, messages...)
	}
	return nil
}

// forget drops the messages of a subscription that has ended from the open transactions. The COMMIT of a
// transaction that had such messages is refused.
func (all *transactions) forget(sub *subscription) {
	for _, t := range all.open {
		if t.acks[sub] != nil {
			delete(t.acks, sub)
			t.ended = sub.key.name()
		}
	}
}

// commit executes a transaction (COMMIT), in one transaction of the store.
func (s *session) commit(f *stomp.Frame, op *operation) error {
	t, err := s.endTransaction(f)
	if err != nil {
		return err
	}
	if t.ended != "" {
		return refusef("COMMIT: the subscription %.100q, whose messages it acknowledges, has ended: nothing was done", t.ended)
	}
	x := embedded.Transaction{Messages: t.sends}
	for sub, acks := range t.acks {
		if len(acks.removed) > 0 {
			x.Acks = append(x.Acks, embedded.Ack{Subscription: sub.source, Seqs: seqsOf(acks.removed)})
			sub.unacked.free(len(acks.removed))
		}
	}
	return s.door.store.Commit(s.opCtx, x, func(outcomes []embedded.Outcome, err error) {
		for i := range t.sends {
			s.door.count(&t.sends[i], outcomes[i], err)
		}
		for sub, acks := range t.acks {
			if len(acks.requeued) > 0 && err == nil {
				sub.requeueLater(seqsOf(acks.requeued), s.door.bounds.nackPause)
			}
		}
		op.done(err)
	})
}

// abortTransaction drops a transaction (ABORT): the messages that the client has acknowledged in it are
// unacknowledged again.
func (s *session) abortTransaction(f *stomp.Frame, op *operation) error {
	t, err := s.endTransaction(f)
	if err != nil {
		return err
	}
	for sub, acks := range t.acks {
		sub.unacked.restore(append(acks.removed, acks.requeued...))
	}
	op.done(nil)
	return nil
}

// seqsOf returns the sequence numbers of messages.
func seqsOf(messages []held) []uint64 {
	seqs := make([]uint64, len(messages))
	for i, m := range messages {
		seqs[i] = m.seq
	}
	return seqs
}
