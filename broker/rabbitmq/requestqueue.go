package rabbitmq

import (
	"context"
	"fmt"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// requestType is the type of a message by which one process requests a queue from another
// process. The message is published to the lock queue, and so delivered to the process that
// holds the lock. Its body is the number of queues that the requester consumes already, in
// decimal.
const requestType = "peerlink-ask"

// requestExpiration is the expiration of a request in milliseconds.
const requestExpiration = "3000"

// RequestQueue sends a request to the process that holds the lock of a queue. It does
// nothing if the queue is consumed without a lock.
func (b *Broker) RequestQueue(ctx context.Context, queue string, held int) error {
	if err := checkQueueName(queue); err != nil {
		return err
	}
	if b.hasOtherConsumers(queue) {
		return nil
	}
	if err := b.toLockHolder(ctx, queue, amqp.Publishing{
		Type: requestType, Expiration: requestExpiration, Body: strconv.AppendInt(nil, int64(held), 10),
	}); err != nil {
		return fmt.Errorf("request queue %s: %w", queue, err)
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

// maxHeld bounds the number of queues that a requester may say it consumes already.
const maxHeld = 1 << 20

// reorderTime bounds the wait for a message with a lower delivery tag.
const reorderTime = time.Second

// catchUp receives the deliveries of the lock queue that precede d. Delivery tags count the
// deliveries to all consumers of an AMQP channel, but the library sends those of the queue
// and of the lock queue on two Go channels, from which they may be received in another order.
// It returns an error if the lock is lost meanwhile.
func (c *consumer) catchUp(d amqp.Delivery, locked <-chan amqp.Delivery) error {
	var late *time.Timer
	for {
		c.mu.Lock()
		follows := c.unacked.follows(d.DeliveryTag)
		c.mu.Unlock()
		if follows {
			return nil
		}
		if late == nil {
			late = time.NewTimer(reorderTime)
			defer late.Stop()
		}
		select {
		case other, ok := <-locked:
			if !ok {
				return c.reason()
			}
			c.receiveFromLock(other)
		case <-late.C:
			return nil // receive reports the gap
		}
	}
}

// receiveFromLock records a delivery of the lock queue, which is a request for the queue or a
// notice of a browser. It ignores other and invalid messages.
func (c *consumer) receiveFromLock(d amqp.Delivery) {
	c.mu.Lock()
	c.unacked.skipTag(d.DeliveryTag)
	c.mu.Unlock()
	if d.Type == browseNoticeType {
		c.receiveBrowseNotice(d.Body)
		return
	}
	if d.Type != requestType || len(d.Body) > 10 {
		return
	}
	held, err := strconv.Atoi(string(d.Body))
	if err != nil || held < 0 || held > maxHeld {
		return
	}
	select {
	case c.requests <- held:
	default: // an earlier request waits to be received
	}
}

// QueueRequests returns the channel of requests from other processes.
func (c *consumer) QueueRequests() <-chan int { return c.requests }
