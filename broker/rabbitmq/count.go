package rabbitmq

import (
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A passive declaration is AMQP's way to count the messages of a queue. If the leader of a quorum
// queue does not answer within 250 ms, or there is no leader, RabbitMQ itself answers that the queue has no
// messages and no consumers. So an answer with consumers is one of the leader, also if it
// counts no messages, and any other count of no messages has to be verified.

const (
	// lateCount is the time after which an empty count is probably not one of the leader.
	lateCount = 200 * time.Millisecond
	// countAttempts is how often a count is repeated at most for each reason.
	countAttempts = 10
)

// isUnverified reports whether a count may be RabbitMQ's own instead of the leader's.
func isUnverified(q amqp.Queue) bool { return q.Messages == 0 && q.Consumers == 0 }

// repeatLate calls declare, which declares a queue passively, again while its count is unverified
// and has come late, at most countAttempts times.
func repeatLate(declare func() (amqp.Queue, error)) (q amqp.Queue, err error) {
	for range countAttempts {
		asked := time.Now()
		if q, err = declare(); err != nil || !isUnverified(q) || time.Since(asked) < lateCount {
			break
		}
	}
	return q, err
}

// count returns how many messages of a queue are not delivered to a consumer, and whether the
// queue exists. It repeats an unverified count that has come late, and one of a queue whose lock is
// held: the holder has a consumer that was not counted, and no message must be taken from it. Any other
// unverified count is verified by countByGet.
func (d declarer) count(name string) (n int, exists bool, err error) {
	for range countAttempts {
		q, err := repeatLate(func() (q amqp.Queue, err error) {
			q, exists, err = d.passiveDeclare(name)
			if err == nil {
				d.live.recordAnswer() // there may be many late ones
			}
			return q, err
		})
		if err != nil || !exists || !isUnverified(q) {
			return q.Messages, exists, err
		}
		if !hasReplyCode(d.checkLock(name), amqp.ResourceLocked) {
			n, err := d.countByGet(name)
			return n, true, err
		}
		time.Sleep(lateCount)
	}
	return 0, true, fmt.Errorf("queue %s is in use, but RabbitMQ counts neither messages nor consumers: it is overloaded, or too few nodes of its cluster are up", name)
}

// countByGet counts the messages of a queue with basic.get, which the leader of a quorum queue answers. It
// returns the message that it gets before it ends. It must only be used if the queue is most likely
// empty: other processes do not count that message meanwhile, and a quorum queue counts
// how often a message was returned, and puts it behind others that were returned before.
func (d declarer) countByGet(name string) (int, error) {
	if t := d.kind(name).queueType; t != Quorum && t != "" {
		return 0, nil // reliable; and a basic.get of a stream would end the connection
	}
	ch, err := d.live.Channel()
	if err != nil {
		return 0, explain(err)
	}
	defer ch.Close()
	m, ok, err := ch.Get(name, false)
	switch {
	case hasReplyCode(err, amqp.AccessRefused) && !inExclusiveUse(err):
		return 0, nil // the user may not read the queue: a better count is not possible
	case err != nil:
		return 0, fmt.Errorf("queue %s: %w", name, explain(err))
	case !ok:
		return 0, nil
	}
	return int(m.MessageCount) + 1, explain(m.Nack(false, true))
}
