package embedded

import (
	"context"
	"fmt"
	"strings"

	"peerlink/broker"
)

// Sending is a message of an application, with the exchange that routes it, and what becomes of
// it if it can not be sent to a peer.
type Sending struct {
	Exchange, RoutingKey string
	broker.Outgoing
	// Invalid is the reason why the message can not be sent, or "" if there is none. With a
	// reason, the message becomes a dead letter of the queues that it is routed to.
	Invalid string
	// Unroutable is called, perhaps several times, if no binding matches. It returns the message
	// to be stored in an inbox in place of this one, or nil: then this one becomes a dead letter of
	// the queue [UnroutableQueue]. Unroutable runs on the writer's goroutine, and must be
	// quick. If it is nil, nothing is stored, and the result is [broker.ErrUnroutable].
	Unroutable func() *broker.Incoming
}

// Outcome is what has become of a message that an application has sent.
type Outcome int

const (
	Queued   Outcome = iota // it is in a queue, or in several
	SetAside                // it is a dead letter
	Answered                // another message is stored in its place
)

const unroutableSuffix = ".unroutable"

// UnroutableQueue returns the name of the queue whose dead letters are the messages that were
// sent to an exchange and could not be routed. [Store.Retry] routes them again.
func UnroutableQueue(exchange string) string { return exchange + unroutableSuffix }

// unroutableReason is the reason of dead letters that could not be routed.
const unroutableReason = "no active peer's range contains the routing key"

// Send routes a message of an application through an outgoing exchange, to each queue with
// a matching binding. It blocks while too many messages are not durable yet. If it returns
// nil, done (which may be nil) is called once: with nil when the message is durable, with
// [broker.ErrUnroutable] if no binding matches, with [ErrFull] if there is no space, with
// [ErrUnwritable] if the store can not be written, and with [broker.ErrClosed] if the
// store was closed before the message was written. done may be called before Send returns. If
// Send returns an error, which may also be one of these, done is not called. The caller must
// not modify m.Body afterwards.
func (s *Store) Send(ctx context.Context, exchange, routingKey string, m broker.Outgoing, done func(error)) error {
	var outcome func(Outcome, error)
	if done != nil {
		outcome = func(_ Outcome, err error) { done(err) }
	}
	return s.SendOrSetAside(ctx, Sending{Exchange: exchange, RoutingKey: routingKey, Outgoing: m}, outcome)
}

// SendOrSetAside is [Store.Send] for a message that may be invalid or unroutable.
func (s *Store) SendOrSetAside(ctx context.Context, m Sending, done func(Outcome, error)) error {
	r, err := s.sendingRow(m)
	if err != nil {
		return err
	}
	part, err := s.writer.applicationBudget.acquire(ctx, 1, r.size())
	if err != nil {
		return err
	}
	var outcome Outcome
	op := &callOp{kind: fromApplication, part: part, do: func(t *tx) (err error) {
		outcome, err = s.send(t, &m, r)
		return err
	}}
	if done != nil {
		op.done = func(err error) { done(outcome, err) }
	}
	return s.writer.submit(op)
}

// sendingRow checks a message of an application, and returns its row.
func (s *Store) sendingRow(m Sending) (row, error) {
	if err := checkName("exchange", m.Exchange); err != nil {
		return row{}, err
	}
	if err := checkName("queue", UnroutableQueue(m.Exchange)); err != nil {
		return row{}, err
	}
	return s.limits.outgoingRow(m.RoutingKey, m.Outgoing)
}

// send stores a message in the queues that it is routed to, or as a dead letter, or another
// message in its place.
func (s *Store) send(t *tx, m *Sending, r row) (Outcome, error) {
	queues, err := t.route(m.Exchange, m.RoutingKey)
	if err != nil {
		return 0, err
	}
	if len(queues) == 0 {
		return s.sendUnroutable(t, m, r)
	}
	outcome := Queued
	if m.Invalid != "" {
		outcome = SetAside
	}
	for _, id := range queues {
		q, err := t.queueByID(id)
		if err != nil {
			return 0, err
		}
		if outcome == SetAside {
			err = t.putDeadLetter(q, r, m.Invalid)
		} else {
			err = t.put(q, r)
		}
		if err != nil {
			return 0, err
		}
	}
	return outcome, nil
}

// sendUnroutable stores a message that no binding matches as a dead letter, or another message
// in its place.
func (s *Store) sendUnroutable(t *tx, m *Sending, r row) (Outcome, error) {
	if m.Unroutable == nil {
		return 0, fmt.Errorf("%w: exchange %s has no binding for routing key %q", broker.ErrUnroutable, m.Exchange, m.RoutingKey)
	}
	reason := m.Invalid
	if reason == "" {
		answer, err := s.answerRow(m.Unroutable())
		if err == nil && answer.message != nil {
			return Answered, t.putInto(answer.message.Exchange, answer)
		}
		if reason = unroutableReason; err != nil {
			reason += "; and it can not be answered: " + err.Error()
		}
	}
	q, err := t.makeQueue(UnroutableQueue(m.Exchange))
	if err != nil {
		return 0, err
	}
	return SetAside, t.putDeadLetter(q, r, reason)
}

// answerRow checks a message for an inbox, and returns its row, or none if m is nil.
func (s *Store) answerRow(m *broker.Incoming) (row, error) {
	if m == nil {
		return row{}, nil
	}
	return s.limits.incomingRow(m)
}

// putInto appends a message to a queue, which it creates if it does not exist.
func (t *tx) putInto(queue string, r row) error {
	q, err := t.makeQueue(queue)
	if err != nil {
		return err
	}
	return t.put(q, r)
}

// putDeadLetter stores a message as a dead letter of a queue, without ever having been in the
// queue.
func (t *tx) putDeadLetter(q *queueChanges, r row, reason string) error {
	m := r.message
	if _, err := t.addDeadLetterRow.exec(q.id, q.nextSeq, t.now, m.Type, m.ContentType, m.RoutingKey, r.headers, m.Body, t.now, reasonText(reason)); err != nil {
		return err
	}
	q.nextSeq++
	q.gaps = true
	return nil
}

// routeAgain returns the queues that a dead letter is moved to when it is retried: its own, or, if
// it could not be routed, those that it is routed to now.
func (t *tx) routeAgain(q *queueChanges, seq uint64) ([]*queueChanges, error) {
	exchange, unroutable := strings.CutSuffix(q.name, unroutableSuffix)
	if !unroutable {
		return []*queueChanges{q}, nil
	}
	key, err := t.deadLetterKey(q, seq)
	if err != nil {
		return nil, err
	}
	ids, err := t.route(exchange, key)
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return nil, broker.ErrUnroutable
	}
	var queues []*queueChanges
	for _, id := range ids {
		to, err := t.queueByID(id)
		if err != nil {
			return nil, err
		}
		queues = append(queues, to)
	}
	return queues, nil
}
