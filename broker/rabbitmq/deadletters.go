package rabbitmq

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
)

var _ broker.DeadLetters = (*Broker)(nil)

// Info counts the messages of a queue and of its dead-letter queue that are
// not given out: those that a service has taken to send them are missing. It
// looks at no message, and so does not know how old they are. It reports
// [broker.ErrNoQueue] if there is neither queue.
func (b *Broker) Info(ctx context.Context, queue string) (broker.QueueInfo, error) {
	var c broker.QueueInfo
	err := checkPeerQueueName(queue, b.opts.AsideSuffix)
	if err == nil {
		err = b.onDeclaring(ctx, func(d declarer) error {
			waiting, there, err := d.count(queue)
			if err != nil {
				return err
			}
			c = broker.QueueInfo{Waiting: waiting}
			for _, name := range b.asideQueues(queue) {
				aside, alsoThere, err := d.count(name)
				if err != nil {
					return err
				}
				if alsoThere && name == b.asideQueue(queue) {
					c.Warning = riskOf(d.arguments(name))
				}
				c.DeadLetters += aside
				there = there || alsoThere
			}
			if !there {
				return broker.ErrNoQueue
			}
			return nil
		})
	}
	if err != nil {
		return broker.QueueInfo{}, fmt.Errorf("count messages of queue %s: %w", queue, err)
	}
	return c, nil
}

// List goes through what is set aside of a queue: what a [broker.Consumer] has
// set aside, and what others have rejected. It reports [broker.ErrNoQueue] if
// there is no dead-letter queue.
//
// RabbitMQ has no way to look at a message but to take it. So nobody else sees
// a message from when it is shown until the end, when all go back to their
// places. They go back, too, when the connection is lost. Where RabbitMQ counts
// that, and would give up a message in the end, those with a high count are replaced
// by copies, and all behind them.
func (b *Broker) List(ctx context.Context, queue string) iter.Seq2[broker.DeadLetter, error] {
	return func(yield func(broker.DeadLetter, error) bool) {
		enough := false
		err := b.browse(ctx, queue, func(br *browser) error {
			for {
				step, err := br.next(ctx)
				if err != nil || len(step) == 0 {
					return err
				}
				if err := br.keep(ctx, step); err != nil {
					return err
				}
				for _, d := range step {
					if !enough && !yield(asideOf(d), nil) {
						enough = true
					}
				}
				// Copies go to the end, and so must all that is behind them. And what a
				// quorum queue gets back goes behind what it got back before.
				if enough && !br.renewing && countOf(step[len(step)-1]) == 0 {
					return nil
				}
			}
		})
		if err != nil && !enough {
			yield(broker.DeadLetter{}, fmt.Errorf("messages of queue %s set aside: %w", queue, err))
		}
	}
}

// Retry publishes messages from the dead-letter queue to the queue, without the
// headers that say why they were there, and acknowledges them when RabbitMQ
// has confirmed that. What fails in between leaves messages in both queues. It
// reports [broker.ErrNoQueue] if there is no queue to go back to.
func (b *Broker) Retry(ctx context.Context, queue string, ids []string) (int, error) {
	f := &queuePublisher{broker: b, queue: queue}
	defer f.close()
	n, err := b.takeAside(ctx, queue, ids, func(messages []amqp.Delivery) error {
		ctx, cancel := context.WithTimeoutCause(ctx, b.opts.ConfirmTimeout, ErrNotConfirmed)
		defer cancel()
		copies := make([]amqp.Publishing, len(messages))
		for i, d := range messages {
			copies[i] = retryCopy(d)
		}
		there, err := f.publish(ctx, copies...)
		if err == nil && !there {
			err = broker.ErrNoQueue
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("retry messages of queue %s: %w", queue, err)
	}
	return n, err
}

// Drop acknowledges messages of the dead-letter queue, which removes them.
func (b *Broker) Drop(ctx context.Context, queue string, ids []string) (int, error) {
	n, err := b.takeAside(ctx, queue, ids, func([]amqp.Delivery) error { return nil })
	if err != nil {
		err = fmt.Errorf("drop messages of queue %s: %w", queue, err)
	}
	return n, err
}

// takeAside removes messages from the dead-letter queue, some at a time, when
// first has succeeded with them. It returns how many.
func (b *Broker) takeAside(ctx context.Context, queue string, ids []string, first func([]amqp.Delivery) error) (total int, err error) {
	missing := make(map[string]bool, len(ids))
	for _, id := range ids {
		missing[id] = true
	}
	if len(missing) == 0 {
		return 0, nil
	}
	err = b.browse(ctx, queue, func(br *browser) error {
		for {
			step, err := br.next(ctx)
			if err != nil || len(step) == 0 {
				return err
			}
			var chosen []amqp.Delivery
			for _, d := range step {
				id := idOf(d)
				if _, wanted := missing[id]; wanted {
					missing[id] = false
					chosen = append(chosen, d)
				}
			}
			if len(chosen) > 0 {
				if err := first(chosen); err != nil {
					return err
				}
			}
			if err := br.remove(ctx, step, chosen); err != nil {
				return err
			}
			total += len(chosen)
		}
	})
	if err != nil {
		return total, err
	}
	return total, broker.NoDeadLetterError(slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !missing[id] }))
}

// retryCopy returns a copy of a delivery from the dead-letter queue as it was
// before it came there.
func retryCopy(d amqp.Delivery) amqp.Publishing {
	m := copyOf(d)
	for name := range m.Headers {
		if isHistory(name) {
			delete(m.Headers, name)
		}
	}
	return m
}

// isHistory reports whether a header says how a message came where it is, as
// opposed to what its sender has to say.
func isHistory(header string) bool {
	return header == "x-death" || isCount(header) || strings.HasPrefix(header, "x-peerlink-") ||
		strings.HasPrefix(header, "x-first-death-") || strings.HasPrefix(header, "x-last-death-")
}

// asideOf returns a message of a dead-letter queue as an operator sees it.
func asideOf(d amqp.Delivery) broker.DeadLetter {
	a := broker.DeadLetter{ID: idOf(d), Outgoing: broker.Outgoing{Type: d.Type, ContentType: d.ContentType, Body: d.Body}}
	if reason, ok := d.Headers[headerReason].(string); ok {
		a.Reason = reasonText(reason)
		a.At, _ = d.Headers[headerTime].(time.Time)
		return a
	}
	// Not our doing. RabbitMQ has noted the last death first.
	deaths, _ := d.Headers["x-death"].([]any)
	if len(deaths) == 0 {
		return a
	}
	death, _ := deaths[0].(amqp.Table)
	if reason, ok := death["reason"].(string); ok {
		a.Reason = deathText(reason)
	}
	a.At, _ = death["time"].(time.Time)
	return a
}

// deathText explains why RabbitMQ has moved a message to a dead-letter queue.
func deathText(reason string) string {
	switch reason {
	case "rejected":
		return "rejected by a program that has consumed the queue, which did not say why"
	case "expired":
		return "not sent within the time that its sender, or a policy, has set"
	case "maxlen":
		return "the queue has become longer than its limit"
	case "delivery_limit":
		return "given out, and not confirmed, too often"
	}
	return reasonText(reason)
}
