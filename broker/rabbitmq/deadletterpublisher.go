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

// The headers that are added to a message in a dead-letter queue: the reason and the time of
// dead-lettering, and the exchange and routing key with which the message was first published.
// A copy that replaces a message in another queue has the last two only; see recordOrigin.
const (
	headerReason     = "x-peerlink-reason"
	headerTime       = "x-peerlink-time"
	headerExchange   = "x-peerlink-exchange"
	headerRoutingKey = "x-peerlink-routing-key"
)

// deadLetterPublisher publishes the dead letters of one queue to its dead-letter queue.
type deadLetterPublisher struct {
	sem    chan struct{} // semaphore: has an element while to is used
	to     queuePublisher
	length *lengthCheck
}

func newDeadLetterPublisher(b *Broker, queue string) deadLetterPublisher {
	return deadLetterPublisher{sem: make(chan struct{}, 1), to: queuePublisher{broker: b, queue: b.deadLetterQueue(queue)}, length: b.lengthCheckFor(queue)}
}

// publish publishes a copy of a delivery, and waits until RabbitMQ has confirmed the copy. It
// also logs the message, because a dead-letter queue may lose messages. Calls wait for each other: lost
// returns an error if the original can not be acknowledged any more, and so must not be copied.
func (p *deadLetterPublisher) publish(ctx context.Context, d amqp.Delivery, reason string, lost func() error) error {
	for _, sem := range []chan struct{}{p.sem, p.length.sem} {
		select {
		case sem <- struct{}{}:
			defer func() { <-sem }()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := lost(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.to.broker.opts.ConfirmTimeout, errNotConfirmed)
	defer cancel()
	b := p.to.broker
	if p.length.needsCheck() {
		b.checkLength(ctx, p.length)
	}
	if p.length.setWatched() {
		go b.watchLength(p.length)
	}
	ok, err := p.to.publish(ctx, deadLetterCopy(d, reason))
	if err == nil && !ok {
		// The dead-letter queue was deleted.
		err = b.withDeclarer(ctx, func(d declarer) error { return d.declareQueue(p.to.queue, nil) })
		if err == nil {
			ok, err = p.to.publish(ctx, deadLetterCopy(d, reason))
		}
	}
	if err == nil && !ok {
		err = fmt.Errorf("%w: RabbitMQ does not route it to queue %s", broker.ErrUnroutable, p.to.queue)
	}
	if err == nil {
		b.log.Warn("message set aside: it is in the dead-letter queue now", "queue", p.to.queue, "type", d.Type,
			"exchange", d.Exchange, "routing_key", d.RoutingKey, "bytes", len(d.Body), "body", excerpt.Limit(string(d.Body), maxLogged))
		p.length.recordAdded()
		if n, exists, err := b.countQueue(ctx, p.to.queue); err == nil && exists {
			p.length.setLength(n)
		}
	}
	return err
}

// maxLogged bounds the part of a message that is logged, in bytes. SMP messages are
// shorter, unless their note is long.
const maxLogged = 1000

// close closes the channel. It waits for a call of publish that is still in progress, whose
// context has ended.
func (p *deadLetterPublisher) close() {
	p.sem <- struct{}{}
	defer func() { <-p.sem }()
	p.to.close()
}

// deadLetterCopy returns a copy of a delivery for the dead-letter queue.
func deadLetterCopy(d amqp.Delivery, reason string) amqp.Publishing {
	m := copyOf(d)
	m.Headers[headerReason] = reasonText(reason)
	m.Headers[headerTime] = time.Now()
	recordOrigin(m.Headers, d)
	return m
}

// copyOf returns a persistent message with the properties of a delivery, except those that would
// make RabbitMQ refuse the message, drop it after some time (the expiration), or route it to
// other queues (CC and BCC). If the headers together have more than maxHeaders bytes, none of
// them is copied.
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
