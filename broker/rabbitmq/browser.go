package rabbitmq

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/internal/wait"
)

const (
	// browseStep is how many messages a browser consumes in one step: as many as can be
	// published again at once.
	browseStep = maxPublish
	// browseSilence is how long a browser waits for a delivery before it checks whether the
	// queue has messages.
	browseSilence = time.Second
	// ackBurst is how many acknowledgements of messages of one queue are sent between
	// pauses of ackPause (see there for the reason).
	ackBurst = 16
)

// browser consumes the messages of a dead-letter queue step by step. Messages that it does
// not remove remain unacknowledged until the end, and then return to their positions.
//
// Each step has a consumer of its own, which is cancelled after it has received its
// messages. A single consumer would need a prefetch count, and the memory, for all
// messages. With basic.get, a quorum queue would change the order of the returned
// messages: it keeps the order only for messages of the same consumer.
//
// A quorum queue counts how often a message was returned, and drops the message when the
// count is too high. So once a message has a high count, this message and all later messages
// that are not removed are replaced by copies at the end of the queue.
type browser struct {
	broker    *Broker
	source    string // the queue that the dead letters come from
	queue     string
	id        string // see browseNotice
	removed   int    // number of messages passed to remove as chosen, also if removing them has failed
	live      *liveConn
	channel   *amqp.Channel
	callMu    sync.Mutex // locked during a call on the channel: an abandoned call may still be running
	remaining int        // number of messages still to be consumed, of those in the queue at the beginning
	kept      []uint64   // delivery tags of the messages that are to be requeued at the end, in order

	replacing bool           // from now on, messages that are not removed are replaced by copies
	copies    queuePublisher // publishes the copies
}

// browse calls do with a browser for each dead-letter queue of a queue, one after the other,
// except for empty dead-letter queues. It returns [broker.ErrNoQueue] if no dead-letter queue
// exists.
func (b *Broker) browse(ctx context.Context, queue string, do func(*browser) error) error {
	err := broker.ErrNoQueue
	for _, name := range b.deadLetterQueues(queue) {
		switch failed := b.browseOne(ctx, queue, name, do); {
		case errors.Is(failed, broker.ErrNoQueue):
		case failed != nil:
			return failed
		default:
			err = nil
		}
	}
	return err
}

// browseOne calls do with a browser for the dead-letter queue name of the queue source, unless
// the dead-letter queue is empty. Before it returns, it waits until the messages that do has not
// removed are in the queue again, with the limits of awaitReady.
func (b *Broker) browseOne(ctx context.Context, source, name string, do func(*browser) error) error {
	if err := checkName("queue "+name, name); err != nil {
		return err
	}
	br := &browser{broker: b, source: source, queue: name, id: rand.Text(), copies: queuePublisher{broker: b, queue: name}}
	defer br.copies.close()
	var err error
	// The number of messages to be consumed is fixed now: a message that is retried may
	// become a dead letter again immediately.
	if br.remaining, err = br.count(ctx); err != nil || br.remaining == 0 {
		return err
	}
	if err := br.checkCanReplace(ctx); err != nil {
		return err
	}
	if br.live, br.channel, err = b.consuming.open(ctx, func(*liveConn, *amqp.Channel) error { return nil }); err != nil {
		return err
	}
	defer br.sendNotice(context.WithoutCancel(ctx), true) // after br.close
	defer br.close()
	if err := do(br); err != nil {
		// After a failure, too, browseOne returns the messages to their positions, and waits for
		// that, but only for closeTimeout.
		if !br.channel.IsClosed() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
			defer cancel()
			_ = br.requeueKept(ctx) // closing the channel returns them too
		}
		return err
	}
	return br.requeueKept(ctx)
}

// checkCanReplace returns an error if RabbitMQ may count the deliveries of the queue's messages, and
// accepts no messages now, so that none could be replaced by a copy. A message that RabbitMQ itself
// has moved to the queue may have a count with which it is dropped the next time it is returned.
func (br *browser) checkCanReplace(ctx context.Context) error {
	k, err := declarerResult(ctx, br.broker, func(d declarer) (kind, error) { return d.kind(br.queue), nil })
	if err != nil || k.queueType == Classic || k.limit == noLimit {
		return err
	}
	if err := br.broker.checkPublishing(ctx); err != nil {
		return fmt.Errorf("queue %s is not looked at now, because its messages could get lost: RabbitMQ counts how often they are delivered, and they can not be replaced by copies: %w", br.queue, err)
	}
	return nil
}

// call executes a synchronous AMQP method on the channel.
func (br *browser) call(ctx context.Context, do func() error) error {
	return br.live.call(ctx, func() error {
		br.callMu.Lock()
		defer br.callMu.Unlock()
		return do()
	}, nil)
}

// close closes the channel, and waits up to closeTimeout until it is closed.
func (br *browser) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = br.call(ctx, br.channel.Close) // the channel is not used any more in any case
}

// count returns the number of messages of the queue that are not delivered to a consumer.
func (br *browser) count(ctx context.Context) (int, error) {
	return declarerResult(ctx, br.broker, func(d declarer) (int, error) {
		n, exists, err := d.count(br.queue)
		if err == nil && !exists {
			err = broker.ErrNoQueue
		}
		return n, err
	})
}

// passiveDeclare returns RabbitMQ's counts of the queue, which may be unverified (see isUnverified).
func (br *browser) passiveDeclare(ctx context.Context) (amqp.Queue, error) {
	return declarerResult(ctx, br.broker, func(d declarer) (amqp.Queue, error) {
		q, exists, err := d.passiveDeclare(br.queue)
		if err == nil && !exists {
			err = broker.ErrNoQueue
		}
		return q, err
	})
}

// awaitDeliveries waits until all messages have arrived that the queue had delivered before it was
// counted: RabbitMQ's answer on the channel follows them.
func (br *browser) awaitDeliveries(ctx context.Context, prefetch int) error {
	return br.call(ctx, func() error { return br.channel.Qos(prefetch, 0, false) })
}

// next consumes the next messages. It returns nil at the end.
func (br *browser) next(ctx context.Context) ([]amqp.Delivery, error) {
	size := min(br.remaining, browseStep)
	if size == 0 {
		return nil, nil
	}
	br.sendNotice(ctx, false)
	tag := fmt.Sprintf("peerlink-%d", br.remaining)
	var arriving <-chan amqp.Delivery
	if err := br.call(ctx, func() (err error) {
		if err = br.channel.Qos(size, 0, false); err != nil {
			return err
		}
		arriving, err = br.channel.Consume(br.queue, tag, false, false, false, false, nil)
		return err
	}); err != nil {
		return nil, err
	}
	step, err := br.receive(ctx, arriving, size)
	if err != nil {
		return nil, err
	}
	if err := br.call(ctx, func() error { return br.channel.Cancel(tag, false) }); err != nil {
		return nil, err
	}
	for d := range arriving { // deliveries that arrived after receive returned
		step = append(step, d)
	}
	br.remaining -= size
	if len(step) < size {
		br.remaining = 0
	}
	return step, nil
}

// receive waits until size messages have arrived, or the queue has no more: another program
// may have consumed some of them.
func (br *browser) receive(ctx context.Context, arriving <-chan amqp.Delivery, size int) (step []amqp.Delivery, err error) {
	silence := time.NewTimer(browseSilence)
	defer silence.Stop()
	for quiet := 0; len(step) < size; {
		select {
		case d, ok := <-arriving:
			switch {
			case ok:
			case br.channel.IsClosed():
				return nil, explain(amqp.ErrClosed)
			default:
				return nil, errGone
			}
			br.live.recordAnswer()
			step = append(step, d)
			quiet = 0
			silence.Reset(browseSilence)
		case <-silence.C:
			q, err := br.passiveDeclare(ctx)
			if err != nil {
				return nil, err
			}
			if q.Messages == 0 && !isUnverified(q) { // the browser itself is a consumer
				return step, br.awaitDeliveries(ctx, size)
			}
			if quiet++; time.Duration(quiet)*browseSilence >= br.broker.opts.ConnectTimeout {
				return nil, fmt.Errorf("queue %s has %d messages, but RabbitMQ does not deliver them: does another program consume the queue exclusively?", br.queue, q.Messages)
			}
			silence.Reset(browseSilence)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-br.broker.life.Done():
			return nil, broker.ErrClosed
		}
	}
	return step, nil
}

// keep keeps messages of a step until the end of the browser, or replaces them by copies.
func (br *browser) keep(ctx context.Context, rest []amqp.Delivery) error {
	br.replacing = br.replacing || slices.ContainsFunc(rest, mustReplace)
	if !br.replacing {
		for _, d := range rest {
			br.kept = append(br.kept, d.DeliveryTag)
		}
		return nil
	}
	if err := br.publishCopies(ctx, rest); err != nil {
		return fmt.Errorf("replace messages by copies: %w", err)
	}
	return br.acknowledge(ctx, rest)
}

// publishCopies publishes copies of messages to their queue. While RabbitMQ accepts no messages, it
// waits: RabbitMQ may drop the originals when they are returned.
func (br *browser) publishCopies(ctx context.Context, originals []amqp.Delivery) error {
	for waited := false; ; waited = true {
		limited, cancel := context.WithTimeoutCause(ctx, br.broker.opts.ConfirmTimeout, errNotConfirmed)
		err := br.copies.publishCopies(limited, originals, false)
		cancel()
		if err == nil || br.broker.publishing.blockedError() == nil || br.channel.IsClosed() {
			return err
		}
		if !waited {
			br.broker.log.Warn("messages that were delivered often can not be replaced by copies before RabbitMQ accepts messages again; they could get lost if this is interrupted", "queue", br.queue, "err", err)
		}
		if wait.Sleep(ctx, time.Second) != nil {
			return err
		}
	}
}

// remove removes the chosen messages of the last step, and keeps the other messages of the
// step. RabbitMQ does not confirm acknowledgements: if it fails at this moment, the messages
// may be in the queue again.
func (br *browser) remove(ctx context.Context, step, chosen []amqp.Delivery) error {
	br.removed += len(chosen)
	if len(chosen) < len(step) {
		gone := make(map[uint64]bool, len(chosen))
		for _, d := range chosen {
			gone[d.DeliveryTag] = true
		}
		rest := slices.DeleteFunc(slices.Clone(step), func(d amqp.Delivery) bool { return gone[d.DeliveryTag] })
		if err := br.keep(ctx, rest); err != nil {
			return err
		}
	} else if len(br.kept) == 0 {
		return explain(br.channel.Ack(step[len(step)-1].DeliveryTag, true)) // all so far
	}
	return br.acknowledge(ctx, chosen)
}

// acknowledge acknowledges messages one by one, which removes them.
func (br *browser) acknowledge(ctx context.Context, messages []amqp.Delivery) error {
	for i, d := range messages {
		if i%ackBurst == ackBurst-1 {
			if err := wait.Sleep(ctx, ackPause); err != nil {
				return err
			}
		}
		if err := br.channel.Ack(d.DeliveryTag, false); err != nil {
			return explain(err)
		}
	}
	return nil
}

// requeueKept requeues the kept messages at their positions, one by one: a queue with a
// delivery limit would change the order of messages that are requeued together. It waits
// until they are in the queue, with the limits of awaitReady.
func (br *browser) requeueKept(ctx context.Context) error {
	ready, err := br.count(ctx)
	if err != nil {
		return err
	}
	poll := true
	for i, tag := range br.kept {
		if err := br.channel.Nack(tag, false, true); err != nil {
			return explain(err)
		}
		if requeued := i + 1; requeued%ackBurst == 0 || requeued == len(br.kept) {
			if poll, err = br.awaitReady(ctx, ready+requeued, poll); err != nil {
				return err
			}
		}
	}
	return nil
}

// awaitReady waits until the queue has want messages that are not delivered, because
// RabbitMQ does not confirm that messages are requeued. Another program may consume them, so
// the wait is bounded by closeTimeout. Once it has timed out, awaitReady returns false, and
// must be called with poll false from then on: then it only pauses.
func (br *browser) awaitReady(ctx context.Context, want int, poll bool) (bool, error) {
	for deadline := time.Now().Add(closeTimeout); poll && time.Now().Before(deadline); {
		if q, err := br.passiveDeclare(ctx); err != nil || q.Messages >= want {
			return true, err
		}
		if err := wait.Sleep(ctx, ackPause/4); err != nil {
			return false, err
		}
	}
	return false, wait.Sleep(ctx, ackPause)
}
