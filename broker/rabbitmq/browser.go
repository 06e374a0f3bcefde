package rabbitmq

import (
	"context"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/internal/pause"
)

const (
	// browseStep is how many messages a browser takes at a time: what can be
	// published again at once.
	browseStep = maxFeed
	// browseSilence is how long a browser waits for a message before it asks
	// whether there is one.
	browseSilence = time.Second
	// ackBurst is how many commands to a queue go before a pause of ackPause;
	// see there.
	ackBurst = 16
)

// browser goes through a dead-letter queue, step by step. Messages that it has
// seen and not removed stay with it, unacknowledged, until the end: then they
// go back to their places.
//
// Each step has a consumer of its own, which is cancelled when it has got its
// messages. A consumer for all would need a prefetch, and the memory, for all.
// And with basic.get a quorum queue would mix up the messages that go back: it
// keeps the order of those that one consumer had.
type browser struct {
	broker  *Broker
	queue   string
	channel *amqp.Channel
	left    int      // messages to come, of those that were there at the beginning
	kept    []uint64 // the last tag of each step that has messages which were not removed
	held    int      // the number of those messages
}

// browse lets do go through the dead-letter queue of a queue. It reports
// [broker.ErrNoQueue].
func (b *Broker) browse(ctx context.Context, queue string, do func(*browser) error) error {
	if err := checkName("queue "+queue, deadLetterQueue(queue)); err != nil {
		return err
	}
	br := &browser{broker: b, queue: deadLetterQueue(queue)}
	var err error
	// Not all there may ever be: one that is retried may be set aside again at
	// once.
	if br.left, err = br.count(ctx); err != nil || br.left == 0 {
		return err
	}
	if _, br.channel, err = b.consuming.open(ctx, func(*live, *amqp.Channel) error { return nil }); err != nil {
		return err
	}
	defer closeChannel(br.channel)
	if err := do(br); err != nil {
		return err
	}
	return br.giveBack(ctx)
}

// count returns how many messages of the queue are not given out.
func (br *browser) count(ctx context.Context) (int, error) {
	var n int
	if err := br.broker.onDeclaring(ctx, func(d declarer) error {
		count, exists, err := d.count(br.queue)
		if err == nil && !exists {
			err = broker.ErrNoQueue
		}
		n = count
		return err
	}); err != nil {
		return 0, err // and n may change yet
	}
	return n, nil
}

// next takes the next messages. There are no more if it returns none.
func (br *browser) next(ctx context.Context) ([]amqp.Delivery, error) {
	size := min(br.left, browseStep)
	if size == 0 {
		return nil, nil
	}
	tag := fmt.Sprintf("peerlink-%d", br.left)
	var arriving <-chan amqp.Delivery
	if err := br.broker.await(ctx, func() (err error) {
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
	if err := br.broker.await(ctx, func() error { return br.channel.Cancel(tag, false) }); err != nil {
		return nil, err
	}
	for d := range arriving { // since receive has given up
		step = append(step, d)
	}
	br.left -= size
	if len(step) < size {
		br.left = 0
	}
	return step, nil
}

// receive waits until so many messages have arrived, or there are no more: they
// may have been removed by another program meanwhile.
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
			step = append(step, d)
			quiet = 0
			silence.Reset(browseSilence)
		case <-silence.C:
			ready, err := br.count(ctx)
			if err != nil {
				return nil, err
			}
			if ready == 0 {
				return step, nil
			}
			if quiet++; time.Duration(quiet)*browseSilence >= br.broker.opts.ConnectTimeout {
				return nil, fmt.Errorf("queue %s has %d messages, but RabbitMQ does not hand them out: has another program reserved the queue?", br.queue, ready)
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

// keep notes that so many messages of a step are not removed.
func (br *browser) keep(step []amqp.Delivery, n int) {
	br.kept = append(br.kept, step[len(step)-1].DeliveryTag)
	br.held += n
}

// remove removes messages of the last step, and keeps the others of it. RabbitMQ
// does not answer: if it fails at this moment, they may be there again.
func (br *browser) remove(ctx context.Context, step, chosen []amqp.Delivery) error {
	if len(chosen) < len(step) {
		br.keep(step, len(step)-len(chosen))
	} else if br.held == 0 {
		return explain(br.channel.Ack(step[len(step)-1].DeliveryTag, true)) // all so far
	}
	for i, d := range chosen {
		if i%ackBurst == ackBurst-1 {
			if err := pause.For(ctx, ackPause); err != nil {
				return err
			}
		}
		if err := br.channel.Ack(d.DeliveryTag, false); err != nil {
			return explain(err)
		}
	}
	return nil
}

// giveBack puts what was kept back to its places, and waits a moment until it
// is there: RabbitMQ does not answer.
func (br *browser) giveBack(ctx context.Context) error {
	for _, tag := range br.kept {
		if err := br.channel.Nack(tag, true, true); err != nil {
			return explain(err)
		}
		if err := pause.For(ctx, ackPause); err != nil {
			return err
		}
	}
	for deadline := time.Now().Add(patience); br.held > 0 && time.Now().Before(deadline); {
		n, err := br.count(ctx)
		if err != nil || n >= br.held {
			return err
		}
		if err := pause.For(ctx, ackPause); err != nil {
			return err
		}
	}
	return nil
}

// await runs something that RabbitMQ answers. The library knows no time limit
// for that; here it is ctx, and [Options.ConnectTimeout].
func (b *Broker) await(ctx context.Context, do func() error) error {
	limit := b.opts.ConnectTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("RabbitMQ has not answered within %v", limit))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- explain(do()) }()
	select {
	case err := <-done:
		if err != nil && b.life.Err() != nil {
			return broker.ErrClosed
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-b.life.Done():
		return broker.ErrClosed
	}
}
