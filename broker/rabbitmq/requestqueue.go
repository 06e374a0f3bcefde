package rabbitmq

import (
	"context"
	"fmt"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
)

var (
	_ broker.QueueRequester = (*Broker)(nil)
	_ broker.QueueYielder   = (*consumer)(nil)
)

// askType is the type of a message by which one process asks another for its queue. It is
// sent to the queue that is the lock; the one who has that gets it. Its body is a number.
const askType = "peerlink-ask"

// askTime is after how many milliseconds a request that nobody has received is void.
const askTime = "3000"

// RequestQueue sends a request to the process that has the lock of a queue. A consumer without
// one can not be asked.
func (b *Broker) RequestQueue(ctx context.Context, queue string, has int) error {
	if err := checkConsumed(queue); err != nil {
		return err
	}
	if b.hasOtherConsumers(queue) {
		return nil
	}
	l, ch, err := b.publishing.open(ctx, func(_ *liveConn, ch *amqp.Channel) error {
		return explain(ch.PublishWithContext(ctx, "", lockQueue(queue), false, false, amqp.Publishing{
			Type: askType, Expiration: askTime, Body: strconv.AppendInt(nil, int64(has), 10),
		}))
	})
	if err != nil {
		return fmt.Errorf("ask for queue %s: %w", queue, err)
	}
	l.closeChannel(ch)
	return nil
}

// hasOtherConsumers reports whether a queue was last seen to have consumers without a lock.
func (b *Broker) hasOtherConsumers(queue string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, has := b.otherConsumers[queue]
	return has
}

// maxHas bounds the number in a request.
const maxHas = 1 << 20

// lateTime bounds the wait for a message that the library has received before another one.
const lateTime = time.Second

// catchUp takes what has come to the lock of the queue before this delivery, if the library
// has handed that out in another order: messages of all consumers of a channel are
// counted together.
func (c *consumer) catchUp(d amqp.Delivery, locked <-chan amqp.Delivery) {
	var late *time.Timer
	for {
		c.mu.Lock()
		follows := c.ledger.follows(d.DeliveryTag)
		c.mu.Unlock()
		if follows {
			return
		}
		if late == nil {
			late = time.NewTimer(lateTime)
			defer late.Stop()
		}
		select {
		case other, ok := <-locked:
			if !ok {
				return // what follows says why
			}
			c.note(other)
		case <-late.C:
			return // receive reports the gap
		}
	}
}

// note takes what has come to the lock of the queue: a request, or nothing of interest.
func (c *consumer) note(d amqp.Delivery) {
	c.mu.Lock()
	c.ledger.skipTag(d.DeliveryTag)
	c.mu.Unlock()
	if d.Type != askType || len(d.Body) > 10 {
		return
	}
	has, err := strconv.Atoi(string(d.Body))
	if err != nil || has < 0 || has > maxHas {
		return
	}
	select {
	case c.asked <- has:
	default:
	}
}

// QueueRequests receives requests of other processes.
func (c *consumer) QueueRequests() <-chan int { return c.asked }
