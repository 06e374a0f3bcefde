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

// probeType is the type of a message by which one process requests a queue from another. It
// is published to the lock queue, and so delivered to the process that holds the lock. The
// body is the argument has of RequestQueue in decimal.
const probeType = "peerlink-ask"

// probeTime is the expiration of a request in milliseconds.
const probeTime = "3000"

// RequestQueue sends a request to the process that holds the lock of a queue. It does
// nothing if the queue is consumed without a lock.
func (b *Broker) RequestQueue(ctx context.Context, queue string, has int) error {
	if err := checkConsumed(queue); err != nil {
		return err
	}
	if b.hasOtherConsumers(queue) {
		return nil
	}
	if err := b.toLockHolder(ctx, queue, amqp.Publishing{
		Type: probeType, Expiration: probeTime, Body: strconv.AppendInt(nil, int64(has), 10),
	}); err != nil {
		return fmt.Errorf("ask for queue %s: %w", queue, err)
	}
	return nil
}

// hasOtherConsumers reports whether the queue was last seen with consumers without a lock.
func (b *Broker) hasOtherConsumers(queue string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, has := b.otherConsumers[queue]
	return has
}

// maxHas bounds the number in a request.
const maxHas = 1 << 20

// lateTime bounds the wait for a message that has a lower delivery tag.
const lateTime = time.Second

// catchUp receives the deliveries of the lock queue that precede d, if the library has
// handed them over in another order: delivery tags count the messages of all consumers of
// a channel.
func (c *consumer) catchUp(d amqp.Delivery, locked <-chan amqp.Delivery) {
	var late *time.Timer
	for {
		c.mu.Lock()
		follows := c.unacked.follows(d.DeliveryTag)
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
				return // the next select in move determines the reason
			}
			c.note(other)
		case <-late.C:
			return // receive reports the gap
		}
	}
}

// note receives a delivery of the lock queue. It ignores messages that are no valid
// requests or notices.
func (c *consumer) note(d amqp.Delivery) {
	c.mu.Lock()
	c.unacked.skipTag(d.DeliveryTag)
	c.mu.Unlock()
	if d.Type == browseType {
		c.noteBrowser(d.Body)
		return
	}
	if d.Type != probeType || len(d.Body) > 10 {
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

// QueueRequests returns the channel of requests from other processes.
func (c *consumer) QueueRequests() <-chan int { return c.asked }
