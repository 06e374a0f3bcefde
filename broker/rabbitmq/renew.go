package rabbitmq

import (
	"context"
	"maps"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/internal/wait"
)

// renewAt is how often a message may have been delivered, and returned, before it is
// replaced by a copy without a count. RabbitMQ 4 drops a message of a quorum queue after
// 20 deliveries, unless the queue or a policy, which AMQP does not show, has another
// limit.
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

// renewable reports whether a message can and should be replaced.
func renewable(d amqp.Delivery) bool { return countOf(d) >= renewAt && sizeOf(d.Headers) <= maxHeaders }

// renewedCopy returns a copy of a delivery that replaces it in its queue. It omits only
// properties that a publisher can not set, or that would route the copy elsewhere.
func renewedCopy(d amqp.Delivery) amqp.Publishing {
	m := copyOf(d)
	m.DeliveryMode, m.Expiration = d.DeliveryMode, d.Expiration
	maps.DeleteFunc(m.Headers, func(name string, _ any) bool { return isCount(name) })
	return m
}

// renewals replaces messages of a consumer with copies.
type renewals struct {
	c    *consumer
	to   queuePublisher
	due  wait.Signal
	wait []amqp.Delivery // to be replaced, in order; guarded by c.mu
	done wait.Signal     // notified when wait is empty
}

// finish waits, up to patience, until all are replaced. Otherwise a consumer that is
// closed soon after it was opened, again and again, would never replace them.
func (r *renewals) finish() {
	late := time.NewTimer(closeTimeout)
	defer late.Stop()
	for len(r.next()) > 0 {
		select {
		case <-r.done:
		case <-late.C:
			return
		case <-r.c.ended:
			return
		}
	}
}

// renews reports whether a delivery will be replaced instead of being delivered to the
// user. No message is replaced while RabbitMQ blocks the connection.
func (r *renewals) renews(d amqp.Delivery) bool {
	if !renewable(d) || r.c.broker.publishing.blocked() != nil {
		return false
	}
	r.wait = append(r.wait, d)
	r.due.Notify()
	return true
}

// run replaces messages until the consumer ends.
func (r *renewals) run() {
	defer r.to.close()
	logged := false
	for {
		select {
		case <-r.due:
		case <-r.c.life.Done():
			return
		case <-r.c.ended:
			return
		}
		for r.c.life.Err() == nil {
			step := r.next()
			if len(step) == 0 {
				r.done.Notify()
				break
			}
			if !logged {
				logged = true
				r.c.broker.log.Info("RabbitMQ counts how often messages of a queue are given out, those with a high count are replaced by copies", "queue", r.c.queue, "count", countOf(step[0]))
			}
			if err := r.replace(step); err != nil && r.c.life.Err() == nil {
				r.c.broker.log.Warn("messages that were given out often can not be replaced by copies now, trying again", "queue", r.c.queue, "err", err)
				_ = wait.Sleep(r.c.life, time.Second)
			}
		}
	}
}

// next returns the first messages to be replaced, up to maxPublish.
func (r *renewals) next() []amqp.Delivery {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	return r.wait[:min(len(r.wait), maxPublish)]
}

// replace publishes copies, and lets the originals be acknowledged after RabbitMQ has
// confirmed the copies. A crash in between leaves both.
func (r *renewals) replace(step []amqp.Delivery) error {
	ctx, cancel := context.WithTimeoutCause(r.c.life, r.c.broker.opts.ConfirmTimeout, errNotConfirmed)
	defer cancel()
	if err := r.to.renew(ctx, step, true); err != nil {
		return err
	}
	r.c.mu.Lock()
	for _, d := range step {
		r.c.unacked.finishDeadLetter(d.DeliveryTag, true)
	}
	r.wait = slices.Delete(r.wait, 0, len(step))
	r.c.mu.Unlock()
	r.c.due.Notify()
	return nil
}

// renew publishes copies of deliveries to their queue.
func (f *queuePublisher) renew(ctx context.Context, originals []amqp.Delivery, keepOrigin bool) error {
	copies := make([]amqp.Publishing, len(originals))
	for i, d := range originals {
		copies[i] = renewedCopy(d)
		if keepOrigin {
			origin(copies[i].Headers, d)
		}
	}
	there, err := f.publish(ctx, copies...)
	if err == nil && !there {
		err = errGone
	}
	return err
}

// origin records the exchange and routing key of the original in the headers of a copy,
// unless they are recorded already.
func origin(headers amqp.Table, d amqp.Delivery) {
	if _, noted := headers[headerExchange]; noted {
		return
	}
	headers[headerExchange], headers[headerRoutingKey] = d.Exchange, d.RoutingKey
}
