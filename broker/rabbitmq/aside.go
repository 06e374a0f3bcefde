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

// The headers of a message in a dead-letter queue that say why it is there,
// since when, and how it came.
const (
	headerReason     = "x-peerlink-reason"
	headerTime       = "x-peerlink-time"
	headerExchange   = "x-peerlink-exchange"
	headerRoutingKey = "x-peerlink-routing-key"
)

// excluded publishes to the dead-letter queue of a queue.
type aside struct {
	turn chan struct{} // has an element while to is used
	to   queuePublisher
	returnCounts
}

func newAside(b *Broker, queue string) aside {
	return aside{turn: make(chan struct{}, 1), to: queuePublisher{broker: b, queue: b.asideQueue(queue)}}
}

// put publishes a copy of a delivery, and waits until RabbitMQ has confirmed
// it. The log gets what the message says: the queue may lose it.
func (a *aside) put(ctx context.Context, d amqp.Delivery, reason string) error {
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, a.to.broker.opts.ConfirmTimeout, ErrNotConfirmed)
	defer cancel()
	ok, err := a.to.publish(ctx, asideCopy(d, reason))
	if err == nil && !ok {
		// Someone has deleted the dead-letter queue.
		err = a.to.broker.onDeclaring(ctx, func(d declarer) error { return d.queue(a.to.queue, nil) })
		if err == nil {
			ok, err = a.to.publish(ctx, asideCopy(d, reason))
		}
	}
	if err == nil && !ok {
		err = fmt.Errorf("%w: RabbitMQ returns it from queue %s", broker.ErrUnroutable, a.to.queue)
	}
	if err == nil {
		a.to.broker.log.Warn("message put into the queue of those set aside", "queue", a.to.queue, "type", d.Type,
			"exchange", d.Exchange, "routing_key", d.RoutingKey, "bytes", len(d.Body), "body", excerpt.Limit(string(d.Body), maxLogged))
		a.count(ctx, a.to.broker, a.to.queue)
	}
	return err
}

// maxLogged is how many bytes of a message the log gets. A message of SMP has less,
// unless its note is long.
const maxLogged = 1000

// close is called when put is not used any more, and returns at once. What put was
// at last busy with ends with its context.
func (a *aside) close() {
	a.turn <- struct{}{}
	defer func() { <-a.turn }()
	a.to.close()
}

// asideCopy returns a copy of a delivery for the dead-letter queue.
func asideCopy(d amqp.Delivery, reason string) amqp.Publishing {
	m := copyOf(d)
	m.Headers[headerReason] = reasonText(reason)
	m.Headers[headerTime] = time.Now()
	origin(m.Headers, d)
	return m
}

// copyOf returns a message with the properties of a delivery, except for those
// with which RabbitMQ would refuse it, let it expire, or deliver it somewhere
// else (CC and BCC).
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

// sizeOf returns about how many bytes a header value has.
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
