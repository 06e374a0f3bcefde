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
	// Unroutable is called with the message, perhaps several times, if no binding matches. It
	// returns the message to be stored in an inbox in place of this one, or nil: then this one
	// becomes a dead letter of the queue [UnroutableQueue]. Unroutable runs on the writer's
	// goroutine, and must be quick. If it is nil, nothing is stored, and the result is
	// [broker.ErrUnroutable].
	Unroutable func(m *broker.Outgoing) *broker.Incoming
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
	r, err := s.limits.sendingRow(&m)
	if err != nil {
		return err
	}
	part, err := s.writer.applicationBudget.acquire(ctx, 1, r.size())
	if err != nil {
		return err
	}
	var outcome Outcome
	op := &callOp{kind: fromApplication, part: part, do: func(t *tx) error {
		p, err := s.limits.place(t, &m, r)
		if err != nil {
			return err
		}
		outcome = p.outcome
		return p.store(t)
	}}
	if done != nil {
		op.done = func(err error) { done(outcome, err) }
	}
	return s.writer.submit(op)
}

// sendingRow checks a message of an application, and returns its row.
func (l limits) sendingRow(m *Sending) (row, error) {
	if err := checkName("exchange", m.Exchange); err != nil {
		return row{}, err
	}
	if err := checkName("queue", UnroutableQueue(m.Exchange)); err != nil {
		return row{}, err
	}
	return l.outgoingRow(m.RoutingKey, m.Outgoing)
}

// placement is where a message of an application is stored.
type placement struct {
	outcome Outcome
	queues  []*queueChanges
	row     row
	reason  string // of a dead letter
}

// place determines where a message of an application is stored. It stores nothing: an error of the
// message must not leave a part of a transaction.
func (l limits) place(t *tx, m *Sending, r row) (placement, error) {
	queues, err := t.route(m.Exchange, m.RoutingKey)
	if err != nil {
		return placement{}, err
	}
	if len(queues) == 0 {
		return l.placeUnroutable(t, m, r)
	}
	p := placement{outcome: Queued, row: r}
	if m.Invalid != "" {
		p.outcome, p.reason = SetAside, m.Invalid
	}
	p.queues, err = t.queuesByID(queues)
	return p, err
}

// placeUnroutable determines what is stored of a message that no binding matches.
func (l limits) placeUnroutable(t *tx, m *Sending, r row) (placement, error) {
	if m.Unroutable == nil {
		return placement{}, fmt.Errorf("%w: exchange %s has no binding for routing key %q", broker.ErrUnroutable, m.Exchange, m.RoutingKey)
	}
	p := placement{outcome: SetAside, row: r, reason: m.Invalid}
	queue := UnroutableQueue(m.Exchange)
	if p.reason == "" {
		p.reason = unroutableReason
		if answer := m.Unroutable(&m.Outgoing); answer != nil {
			a, err := l.incomingRow(answer)
			if err == nil {
				p.outcome, p.row, queue = Answered, a, answer.Exchange
			} else {
				p.reason += "; and it can not be answered: " + err.Error()
			}
		}
	}
	q, err := t.makeQueue(queue)
	p.queues = []*queueChanges{q}
	return p, err
}

// store stores the message.
func (p *placement) store(t *tx) error {
	for _, q := range p.queues {
		var err error
		if p.outcome == SetAside {
			err = t.putDeadLetter(q, p.row, p.reason)
		} else {
			err = t.put(q, p.row)
		}
		if err != nil {
			return err
		}
	}
	return nil
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

// queuesByID returns the queueChanges of several queues.
func (t *tx) queuesByID(ids []int64) (queues []*queueChanges, err error) {
	for _, id := range ids {
		q, err := t.queueByID(id)
		if err != nil {
			return nil, err
		}
		queues = append(queues, q)
	}
	return queues, nil
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
	if err == nil && len(ids) == 0 {
		err = broker.ErrUnroutable
	}
	if err != nil {
		return nil, err
	}
	return t.queuesByID(ids)
}
