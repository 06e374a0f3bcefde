package rabbitmq

import (
	"context"
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
	// browseStep is how many messages a browser takes at a time: what can be
	// published again at once.
	browseStep = maxPublish
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
//
// A quorum queue counts how often a message has gone back, and gives it up when that
// is too often. So when there is one with a high count, it and all that come behind
// it, and are not removed, are replaced by copies at the end of the queue.
type browser struct {
	broker  *Broker
	queue   string
	live    *liveConn
	channel *amqp.Channel
	callMu  sync.Mutex // held during a call on the channel: one that was abandoned goes on
	left    int        // messages to come, of those that were there at the beginning
	kept    []uint64   // the tags of messages that were not removed, in order

	renewing bool           // all that is still to come, and not removed, is replaced by copies
	to       queuePublisher // of which
}

// browse lets do go through the queues with the messages of a queue that are set aside, one
// after the other. It reports [broker.ErrNoQueue] if there is none of them.
func (b *Broker) browse(ctx context.Context, queue string, do func(*browser) error) error {
	err := broker.ErrNoQueue
	for _, name := range b.asideQueues(queue) {
		switch one := b.browseOne(ctx, name, do); {
		case errors.Is(one, broker.ErrNoQueue):
		case one != nil:
			return one
		default:
			err = nil
		}
	}
	return err
}

func (b *Broker) browseOne(ctx context.Context, name string, do func(*browser) error) error {
	if err := checkName("queue "+name, name); err != nil {
		return err
	}
	br := &browser{broker: b, queue: name, to: queuePublisher{broker: b, queue: name}}
	defer br.to.close()
	var err error
	// Not all there may ever be: one that is retried may be set aside again at
	// once.
	if br.left, err = br.count(ctx); err != nil || br.left == 0 {
		return err
	}
	if br.live, br.channel, err = b.consuming.open(ctx, func(*liveConn, *amqp.Channel) error { return nil }); err != nil {
		return err
	}
	defer br.close()
	if err := do(br); err != nil {
		return err
	}
	return br.giveBack(ctx)
}

// call runs something on the channel that RabbitMQ answers.
func (br *browser) call(ctx context.Context, do func() error) error {
	return br.live.call(ctx, func() error {
		br.callMu.Lock()
		defer br.callMu.Unlock()
		return do()
	}, nil)
}

// close closes the channel, and waits for a moment until that is done.
func (br *browser) close() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = br.call(ctx, br.channel.Close) // it is over in any case
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
	for d := range arriving { // since receive has given up
		step = append(step, d)
	}
	br.left -= size
	if len(step) < size {
		br.left = 0
	}
	return step, nil
}

// receive waits until size messages have arrived, or there are no more: they
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

// exclude keeps those messages of a step that are not removed.
func (br *browser) keep(ctx context.Context, rest []amqp.Delivery) error {
	br.renewing = br.renewing || slices.ContainsFunc(rest, renewable)
	if !br.renewing {
		for _, d := range rest {
			br.kept = append(br.kept, d.DeliveryTag)
		}
		return nil
	}
	limited, cancel := context.WithTimeoutCause(ctx, br.broker.opts.ConfirmTimeout, ErrNotConfirmed)
	defer cancel()
	if err := br.to.renew(limited, rest, false); err != nil {
		return fmt.Errorf("replace messages that were looked at often by copies: %w", err)
	}
	return br.acknowledge(ctx, rest)
}

// remove removes messages of the last step, and keeps the others of it. RabbitMQ
// does not answer: if it fails at this moment, they may be there again.
func (br *browser) remove(ctx context.Context, step, chosen []amqp.Delivery) error {
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

// acknowledge removes messages one by one.
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

// giveBack puts what was kept back to its places, one by one: where a queue has a
// delivery limit, those that it gets back together are mixed up. It waits until
// they are there.
func (br *browser) giveBack(ctx context.Context) error {
	ready, err := br.count(ctx)
	if err != nil {
		return err
	}
	patient := true
	for i, tag := range br.kept {
		if err := br.channel.Nack(tag, false, true); err != nil {
			return explain(err)
		}
		if returned := i + 1; returned%ackBurst == 0 || returned == len(br.kept) {
			if patient, err = br.awaitReady(ctx, ready+returned, patient); err != nil {
				return err
			}
		}
	}
	return nil
}

// awaitReady waits until want messages of the queue are not given out. RabbitMQ
// does not answer when it gets messages back. Another program may take them out
// meanwhile, so there is a limit to that; afterwards there is only a pause. It reports
// whether they are there.
func (br *browser) awaitReady(ctx context.Context, want int, patient bool) (bool, error) {
	for deadline := time.Now().Add(patience); patient && time.Now().Before(deadline); {
		if n, err := br.count(ctx); err != nil || n >= want {
			return true, err
		}
		if err := wait.Sleep(ctx, ackPause/4); err != nil {
			return false, err
		}
	}
	return false, wait.Sleep(ctx, ackPause)
}
