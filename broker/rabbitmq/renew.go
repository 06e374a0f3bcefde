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

// renewAt is the count (see countOf) at which a message is replaced by a copy without a count.
// RabbitMQ 4 drops a message of a quorum queue after 20 deliveries, unless the queue or a
// policy, which AMQP does not show, has another limit.
const renewAt = 5

// countOf returns how often, according to RabbitMQ, a message was returned.
func countOf(d amqp.Delivery) int64 {
	n := int64(0)
	for _, name := range countHeaders {
		if count, ok := d.Headers[name].(int64); ok {
			n = max(n, count)
		}
	}
	return n
}

// countHeaders are the headers with the counts of quorum queues.
var countHeaders = []string{"x-delivery-count", "x-acquired-count"}

func isCount(header string) bool { return slices.Contains(countHeaders, header) }

// renewable reports whether a message can and should be replaced by a copy.
func renewable(d amqp.Delivery) bool { return countOf(d) >= renewAt && sizeOf(d.Headers) <= maxHeaders }

// renewedCopy returns a copy of a delivery that replaces it in its queue. It omits only
// properties that a publisher can not set, or that would route the copy elsewhere.
func renewedCopy(d amqp.Delivery) amqp.Publishing {
	m := copyOf(d)
	m.DeliveryMode, m.Expiration = d.DeliveryMode, d.Expiration
	maps.DeleteFunc(m.Headers, func(name string, _ any) bool { return isCount(name) })
	return m
}

// renewals replaces messages of a consumer by copies.
type renewals struct {
	consumer *consumer
	to       queuePublisher
	due      wait.Signal     // notified when waiting has messages
	waiting  []amqp.Delivery // to be replaced, in order; guarded by consumer.mu
	done     wait.Signal     // notified when waiting is empty
}

// finish waits, up to closeTimeout, until all waiting messages are replaced. Otherwise
// consumers that are closed soon after they were opened would never replace them.
func (r *renewals) finish() {
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

// addIfRenewable adds a delivery to the waiting messages if it has to be replaced, and reports
// whether it was added: such a message is not delivered to the user. It adds none while RabbitMQ
// blocks the connection for publishing; then no more consumers of the queue are opened before
// the blockage is over, see [Broker.checkCanReplace]. The caller holds consumer.mu.
func (r *renewals) addIfRenewable(d amqp.Delivery) bool {
	if !renewable(d) {
		return false
	}
	if r.consumer.broker.publishing.blockedError() != nil {
		r.consumer.broker.recordUnrenewed(r.consumer.queue)
		return false
	}
	r.waiting = append(r.waiting, d)
	r.due.Notify()
	return true
}

// recordUnrenewed records that a queue has messages that have to be replaced by copies, and
// cannot be now.
func (b *Broker) recordUnrenewed(queue string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unrenewed[queue] = true
}

// checkCanReplace returns an error while RabbitMQ blocks the connection, if messages of the queue
// had to be replaced and could not be: RabbitMQ counts another delivery of each message that a
// consumer gets and returns, and drops those with a high count.
func (b *Broker) checkCanReplace(queue string) error {
	blocked := b.publishing.blockedError()
	b.mu.Lock()
	defer b.mu.Unlock()
	if blocked == nil {
		delete(b.unrenewed, queue)
	}
	if !b.unrenewed[queue] {
		return nil
	}
	return fmt.Errorf("its messages were delivered often, and can not be replaced by copies now: %w", blocked)
}

// run replaces messages until the consumer ends.
func (r *renewals) run() {
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
			step := r.next()
			if len(step) == 0 {
				r.done.Notify()
				break
			}
			if !logged {
				logged = true
				r.consumer.broker.log.Info("RabbitMQ counts how often messages of a queue are delivered, those with a high count are replaced by copies", "queue", r.consumer.queue, "count", countOf(step[0]))
			}
			if err := r.replace(step); err != nil && r.consumer.life.Err() == nil {
				r.consumer.broker.log.Warn("messages that were delivered often can not be replaced by copies now, trying again", "queue", r.consumer.queue, "err", err)
				_ = wait.Sleep(r.consumer.life, time.Second)
			}
		}
	}
}

// next returns the first waiting messages, up to maxPublish, and leaves them there.
func (r *renewals) next() []amqp.Delivery {
	r.consumer.mu.Lock()
	defer r.consumer.mu.Unlock()
	return r.waiting[:min(len(r.waiting), maxPublish)]
}

// replace publishes copies of the first waiting messages, and has the originals acknowledged
// after RabbitMQ has confirmed the copies. A crash in between leaves both in the queue.
func (r *renewals) replace(step []amqp.Delivery) error {
	ctx, cancel := context.WithTimeoutCause(r.consumer.life, r.consumer.broker.opts.ConfirmTimeout, errNotConfirmed)
	defer cancel()
	if err := r.to.renew(ctx, step, true); err != nil {
		return err
	}
	r.consumer.mu.Lock()
	for _, d := range step {
		r.consumer.unacked.finishMove(d.DeliveryTag, true)
	}
	r.waiting = slices.Delete(r.waiting, 0, len(step))
	r.consumer.mu.Unlock()
	r.consumer.due.Notify()
	return nil
}

// renew publishes copies of deliveries to their queue; keepOrigin is whether the copies have
// headers with the exchanges and routing keys of the originals.
func (p *queuePublisher) renew(ctx context.Context, originals []amqp.Delivery, keepOrigin bool) error {
	copies := make([]amqp.Publishing, len(originals))
	for i, d := range originals {
		copies[i] = renewedCopy(d)
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
