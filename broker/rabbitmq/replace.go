package rabbitmq

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/internal/wait"
)

const (
	// replaceAt is the delivery count (see deliveryCount) at which a message is replaced by a
	// copy, which has none. RabbitMQ 4 drops a message of a quorum queue whose count is above 20,
	// unless the queue or a policy, which AMQP does not show, has another limit.
	replaceAt = 2
	// minLimit is the lowest delivery limit with which no message is lost: a message whose
	// count is replaceAt may be returned once more, if its copy could not be published.
	minLimit = replaceAt + 1
)

// deliveryCount returns how often, according to RabbitMQ, a message was delivered and returned. It
// is 0 if the queue does not count that.
func deliveryCount(d amqp.Delivery) int64 {
	n := int64(0)
	for _, name := range deliveryCountHeaders {
		if count, ok := d.Headers[name].(int64); ok {
			n = max(n, count)
		}
	}
	return n
}

// deliveryCountHeaders are the headers in which quorum queues count deliveries.
var deliveryCountHeaders = []string{"x-delivery-count", "x-acquired-count"}

func isDeliveryCount(header string) bool { return slices.Contains(deliveryCountHeaders, header) }

// mustReplace reports whether a message has to be replaced by a copy, and can be.
func mustReplace(d amqp.Delivery) bool {
	return deliveryCount(d) >= replaceAt && sizeOf(d.Headers) <= maxHeaders
}

// replacementFor returns the copy that replaces a delivery in its queue. It omits only
// properties that a publisher can not set, or that would route the copy elsewhere.
func replacementFor(d amqp.Delivery) amqp.Publishing {
	m := copyOf(d)
	m.DeliveryMode, m.Expiration = d.DeliveryMode, d.Expiration
	maps.DeleteFunc(m.Headers, func(name string, _ any) bool { return isDeliveryCount(name) })
	return m
}

// replacer replaces messages of a consumer that were delivered often by copies.
type replacer struct {
	consumer *consumer
	to       queuePublisher
	due      wait.Signal     // notified when waiting has messages
	waiting  []amqp.Delivery // to be replaced, in order; guarded by consumer.mu
	done     wait.Signal     // notified when waiting is empty
}

// finish waits, up to closeTimeout, until all waiting messages are replaced. Otherwise
// consumers that are closed soon after they were opened would never replace them.
func (r *replacer) finish() {
	late := time.NewTimer(closeTimeout)
	defer late.Stop()
	for len(r.next()) > 0 {
		select {
		case <-r.done:
		case <-late.C:
			return
		case <-r.consumer.ended:
			return
		}
	}
}

// addIfNeeded adds a delivery to the waiting messages if it has to be replaced, and reports
// whether it was added. If it was, [consumer.Next] does not return it. While RabbitMQ blocks the
// connection for publishing, addIfNeeded adds no delivery, and no more consumers of the queue are
// opened, see [Broker.checkCanReplace]. The caller holds consumer.mu.
func (r *replacer) addIfNeeded(d amqp.Delivery) bool {
	if !mustReplace(d) {
		return false
	}
	if r.consumer.broker.publishing.blockedError() != nil {
		r.consumer.broker.recordUnreplaced(r.consumer.queue)
		return false
	}
	r.waiting = append(r.waiting, d)
	r.due.Notify()
	return true
}

// recordUnreplaced records that messages of a queue have to be replaced by copies, but cannot be
// now.
func (b *Broker) recordUnreplaced(queue string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unreplaced[queue] = true
}

// checkCanReplace returns an error if messages of the queue have to be replaced, and cannot be
// because RabbitMQ blocks the connection for publishing. Another consumer would only raise the
// delivery counts of the messages, and RabbitMQ drops messages with a high count.
func (b *Broker) checkCanReplace(queue string) error {
	blocked := b.publishing.blockedError()
	b.mu.Lock()
	defer b.mu.Unlock()
	if blocked == nil {
		delete(b.unreplaced, queue)
	}
	if !b.unreplaced[queue] {
		return nil
	}
	return fmt.Errorf("its messages were delivered often, and can not be replaced by copies now: %w", blocked)
}

// run replaces messages until the consumer ends.
func (r *replacer) run() {
	defer r.to.close()
	logged := false
	for {
		select {
		case <-r.due:
		case <-r.consumer.life.Done():
			return
		case <-r.consumer.ended:
			return
		}
		for r.consumer.life.Err() == nil {
			batch := r.next()
			if len(batch) == 0 {
				r.done.Notify()
				break
			}
			if !logged {
				logged = true
				r.consumer.broker.log.Info("RabbitMQ counts how often messages of a queue are delivered, those with a high count are replaced by copies", "queue", r.consumer.queue, "count", deliveryCount(batch[0]))
			}
			if err := r.replace(batch); err != nil && r.consumer.life.Err() == nil {
				r.consumer.broker.log.Warn("messages that were delivered often can not be replaced by copies now, trying again", "queue", r.consumer.queue, "err", err)
				_ = wait.Sleep(r.consumer.life, time.Second)
			}
		}
	}
}

// next returns the first waiting messages, up to maxPublish, and leaves them there.
func (r *replacer) next() []amqp.Delivery {
	r.consumer.mu.Lock()
	defer r.consumer.mu.Unlock()
	return r.waiting[:min(len(r.waiting), maxPublish)]
}

// replace publishes copies of the first waiting messages, and has the originals acknowledged
// after RabbitMQ has confirmed the copies. A crash in between leaves both in the queue.
func (r *replacer) replace(batch []amqp.Delivery) error {
	ctx, cancel := context.WithTimeoutCause(r.consumer.life, r.consumer.broker.opts.ConfirmTimeout, errNotConfirmed)
	defer cancel()
	if err := r.to.publishCopies(ctx, batch, true); err != nil {
		return err
	}
	r.consumer.mu.Lock()
	for _, d := range batch {
		r.consumer.unacked.finishMove(d.DeliveryTag, true)
	}
	r.waiting = slices.Delete(r.waiting, 0, len(batch))
	r.consumer.mu.Unlock()
	r.consumer.due.Notify()
	return nil
}

// publishCopies publishes copies of deliveries to their queue. If keepOrigin is true, headers of
// the copies contain the exchanges and routing keys of the originals.
func (p *queuePublisher) publishCopies(ctx context.Context, originals []amqp.Delivery, keepOrigin bool) error {
	copies := make([]amqp.Publishing, len(originals))
	for i, d := range originals {
		copies[i] = replacementFor(d)
		if keepOrigin {
			recordOrigin(copies[i].Headers, d)
		}
	}
	routed, err := p.publish(ctx, copies...)
	if err == nil && !routed {
		err = errGone
	}
	return err
}

// recordOrigin records the exchange and routing key of the original in the headers of a copy,
// unless they are recorded already.
func recordOrigin(headers amqp.Table, d amqp.Delivery) {
	if _, recorded := headers[headerExchange]; recorded {
		return
	}
	headers[headerExchange], headers[headerRoutingKey] = d.Exchange, d.RoutingKey
}
