package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
)

var _ broker.DeadLetters = (*Broker)(nil)

// Info counts the messages of a queue and of its dead-letter queues, except those that are
// delivered to a consumer and not acknowledged. Info does not look at messages, so Oldest is
// zero. It returns [broker.ErrNoQueue] if none of the queues exists.
func (b *Broker) Info(ctx context.Context, queue string) (broker.QueueInfo, error) {
	var info broker.QueueInfo
	err := checkDeadLetterNames(queue, b.opts.DeadLetterSuffix)
	if err == nil {
		info, err = declarerResult(ctx, b, func(d declarer) (broker.QueueInfo, error) { return d.info(queue) })
	}
	if err != nil {
		return broker.QueueInfo{}, fmt.Errorf("count messages of queue %s: %w", queue, err)
	}
	return info, nil
}

// info counts the messages of a queue and of its dead-letter queues, and warns of arguments because
// of which RabbitMQ may drop messages.
func (d declarer) info(queue string) (info broker.QueueInfo, err error) {
	var exists bool
	if info.Waiting, exists, err = d.count(queue); err != nil {
		return info, err
	}
	var warnings []string
	warn := func(name string, usual amqp.Table) {
		if risk := riskOf(d.arguments(name, usual)); risk != "" {
			warnings = append(warnings, fmt.Sprintf("queue %s: %s", name, risk))
		}
	}
	if exists {
		warn(queue, deadLettering(queue))
	}
	b := d.live.broker
	for _, name := range b.deadLetterQueues(queue) {
		deadLetters, hasQueue, err := d.count(name)
		if err != nil {
			return info, err
		}
		if hasQueue && name == b.deadLetterQueue(queue) {
			warn(name, nil)
		}
		info.DeadLetters += deadLetters
		exists = exists || hasQueue
	}
	if !exists {
		return info, broker.ErrNoQueue
	}
	info.Warning = strings.Join(warnings, "; ")
	return info, nil
}

// List iterates over the dead letters of a queue: those of a [broker.Consumer], and those
// that other programs have rejected. It yields [broker.ErrNoQueue] if there is no
// dead-letter queue.
//
// AMQP has no way to look at a message without consuming it. So other programs do not see a
// message from the time it is listed until the iteration ends, when all messages return to their
// positions. They also return when the connection is lost. If RabbitMQ counts how often a
// message was returned, and would drop it when the count is too high, messages with a high
// count and all later messages are replaced by copies.
func (b *Broker) List(ctx context.Context, queue string) iter.Seq2[broker.DeadLetter, error] {
	return func(yield func(broker.DeadLetter, error) bool) {
		stopped := false // yield has returned false
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
					if !stopped && !yield(deadLetterOf(d), nil) {
						stopped = true
					}
				}
				// Copies are at the end of the queue, so all later messages must be replaced
				// by copies too. And a quorum queue puts messages that are returned behind
				// those that were returned before.
				if stopped && !br.replacing && deliveryCount(step[len(step)-1]) == 0 {
					return nil
				}
			}
		})
		if err != nil && !stopped {
			yield(broker.DeadLetter{}, fmt.Errorf("read dead letters of queue %s: %w", queue, err))
		}
	}
}

// Retry publishes dead letters to the queue, without the headers that RabbitMQ and
// DeadLetter have added, and acknowledges the originals after RabbitMQ has confirmed the
// copies. A failure in between leaves messages in both queues. Retry returns
// [broker.ErrNoQueue] if the queue does not exist, or has no dead-letter queue.
func (b *Broker) Retry(ctx context.Context, queue string, ids []string) (int, error) {
	p := &queuePublisher{broker: b, queue: queue}
	defer p.close()
	n, err := b.removeDeadLetters(ctx, queue, ids, func(messages []amqp.Delivery) error {
		ctx, cancel := context.WithTimeoutCause(ctx, b.opts.ConfirmTimeout, errNotConfirmed)
		defer cancel()
		copies := make([]amqp.Publishing, len(messages))
		for i, d := range messages {
			copies[i] = retryCopy(d)
		}
		routed, err := p.publish(ctx, copies...)
		if err == nil && !routed {
			err = broker.ErrNoQueue
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("retry messages of queue %s: %w", queue, err)
	}
	return n, err
}

// Drop acknowledges messages of the dead-letter queue, which deletes them.
func (b *Broker) Drop(ctx context.Context, queue string, ids []string) (int, error) {
	n, err := b.removeDeadLetters(ctx, queue, ids, func([]amqp.Delivery) error { return nil })
	if err != nil {
		err = fmt.Errorf("drop messages of queue %s: %w", queue, err)
	}
	return n, err
}

// removeDeadLetters removes the messages with these IDs from the dead-letter queues, step by
// step. It calls beforeRemoval with the messages that it is about to remove in a step, and ends
// if that fails. It returns how many messages it has removed, and [broker.ErrNoDeadLetter] if
// some of the IDs were not found.
func (b *Broker) removeDeadLetters(ctx context.Context, queue string, ids []string, beforeRemoval func([]amqp.Delivery) error) (total int, err error) {
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
				if err := beforeRemoval(chosen); err != nil {
					return errors.Join(err, br.keep(ctx, step))
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

// retryCopy returns a copy of a dead letter without the headers that were added to it.
func retryCopy(d amqp.Delivery) amqp.Publishing {
	m := copyOf(d)
	for name := range m.Headers {
		if isHistory(name) {
			delete(m.Headers, name)
		}
	}
	return m
}

// isHistory reports whether a header was added by RabbitMQ or this package to record the
// history of a message, as opposed to a header of the sender.
func isHistory(header string) bool {
	return header == "x-death" || isDeliveryCount(header) || strings.HasPrefix(header, "x-peerlink-") ||
		strings.HasPrefix(header, "x-first-death-") || strings.HasPrefix(header, "x-last-death-")
}

// deadLetterOf returns the operator's view of a message in a dead-letter queue.
func deadLetterOf(d amqp.Delivery) broker.DeadLetter {
	l := broker.DeadLetter{ID: idOf(d), Outgoing: broker.Outgoing{Type: d.Type, ContentType: d.ContentType, Body: d.Body}}
	if reason, ok := d.Headers[headerReason].(string); ok {
		l.Reason = reasonText(reason)
		l.At, _ = d.Headers[headerTime].(time.Time)
		return l
	}
	// The message was not moved by DeadLetter, but by RabbitMQ, whose header x-death has the
	// last event first.
	deaths, _ := d.Headers["x-death"].([]any)
	if len(deaths) == 0 {
		return l
	}
	death, _ := deaths[0].(amqp.Table)
	if reason, ok := death["reason"].(string); ok {
		l.Reason = deathText(reason)
	}
	l.At, _ = death["time"].(time.Time)
	return l
}

// deathText explains why RabbitMQ has moved a message to a dead-letter queue.
func deathText(reason string) string {
	switch reason {
	case "rejected":
		return "rejected by a program that has consumed the queue, which has given no reason"
	case "expired":
		return "not sent within the time that its sender, or a policy, has set"
	case "maxlen":
		return "the queue has become longer than its limit"
	case "delivery_limit":
		return "delivered too often without being confirmed"
	}
	return reasonText(reason)
}
