package rabbitmq

import (
	"context"
	"fmt"
	"maps"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/internal/excerpt"
)

// The headers of a message in a dead-letter queue that record the reason, the time, and
// the exchange and routing key of its first delivery.
const (
	headerReason     = "x-peerlink-reason"
	headerTime       = "x-peerlink-time"
	headerExchange   = "x-peerlink-exchange"
	headerRoutingKey = "x-peerlink-routing-key"
)

// deadLetterPublisher publishes dead letters of one queue.
type deadLetterPublisher struct {
	sem    chan struct{} // semaphore: has an element while to is used
	to     queuePublisher
	length *lengthCheck
}

func newDeadLetterPublisher(b *Broker, queue string) deadLetterPublisher {
	return deadLetterPublisher{sem: make(chan struct{}, 1), to: queuePublisher{broker: b, queue: b.deadLetterQueueOf(queue)}, length: b.newLengthCheck(queue)}
}

// publish publishes a copy of a delivery, and waits until RabbitMQ has confirmed it. It logs
// the message, too, because a dead-letter queue may lose messages.
func (a *deadLetterPublisher) publish(ctx context.Context, d amqp.Delivery, reason string) error {
	for _, sem := range []chan struct{}{a.sem, a.length.sem} {
		select {
		case sem <- struct{}{}:
			defer func() { <-sem }()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, a.to.broker.opts.ConfirmTimeout, errNotConfirmed)
	defer cancel()
	b := a.to.broker
	if a.length.needsCheck() {
		b.checkLength(ctx, a.length)
	}
	if a.length.startWatch() {
		go b.watchLength(a.length)
	}
	ok, err := a.to.publish(ctx, deadLetterCopy(d, reason))
	if err == nil && !ok {
		// The dead-letter queue was deleted.
		err = a.to.broker.onDeclaring(ctx, func(d declarer) error { return d.queue(a.to.queue, nil) })
		if err == nil {
			ok, err = a.to.publish(ctx, deadLetterCopy(d, reason))
		}
	}
	if err == nil && !ok {
		err = fmt.Errorf("%w: RabbitMQ returns it from queue %s", broker.ErrUnroutable, a.to.queue)
	}
	if err == nil {
		a.to.broker.log.Warn("message put into the queue of those set aside", "queue", a.to.queue, "type", d.Type,
			"exchange", d.Exchange, "routing_key", d.RoutingKey, "bytes", len(d.Body), "body", excerpt.Limit(string(d.Body), maxLogged))
		a.length.added()
		if n, exists, err := b.countQueue(ctx, a.to.queue); err == nil && exists {
			a.length.counted(n)
		}
	}
	return err
}

// maxLogged bounds the part of a message that is logged, in bytes. SMP messages are
// shorter, unless their note is long.
const maxLogged = 1000

// close is called after the last call of put. It does not wait: a call of put that is
// still in progress ends with its context.
func (a *deadLetterPublisher) close() {
	a.sem <- struct{}{}
	defer func() { <-a.sem }()
	a.to.close()
}

// deadLetterCopy returns a copy of a delivery for the dead-letter queue.
func deadLetterCopy(d amqp.Delivery, reason string) amqp.Publishing {
	m := copyOf(d)
	m.Headers[headerReason] = reasonText(reason)
	m.Headers[headerTime] = time.Now()
	origin(m.Headers, d)
	return m
}

// copyOf returns a message with the properties of a delivery, except for those that would
// make RabbitMQ refuse the message, expire it, or route it to other queues (CC and BCC).
func copyOf(d amqp.Delivery) amqp.Publishing {
	headers := make(amqp.Table, len(d.Headers)+4)
	if sizeOf(d.Headers) <= maxHeaders {
		maps.Copy(headers, d.Headers)
	}
	delete(headers, "CC")
	delete(headers, "BCC")
	return amqp.Publishing{
		Headers:         headers,
		ContentType:     d.ContentType,
		ContentEncoding: d.ContentEncoding,
		DeliveryMode:    amqp.Persistent,
		Priority:        d.Priority,
		CorrelationId:   d.CorrelationId,
		ReplyTo:         d.ReplyTo,
		MessageId:       d.MessageId,
		Timestamp:       d.Timestamp,
		Type:            d.Type,
		AppId:           d.AppId,
		Body:            d.Body,
	}
}

// sizeOf returns the approximate size of a header value in bytes.
func sizeOf(value any) int {
	size := 10
	switch v := value.(type) {
	case amqp.Table:
		for name, field := range v {
			size += len(name) + sizeOf(field)
		}
	case []any:
		for _, element := range v {
			size += sizeOf(element)
		}
	case string:
		size += len(v)
	case []byte:
		size += len(v)
	}
	return size
}
