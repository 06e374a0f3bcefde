package rabbitmq

import (
	"context"
	"fmt"
	"maps"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
)

// The headers of a message in a dead-letter queue that say why it is there,
// and how it came.
const (
	headerReason     = "x-peerlink-reason"
	headerExchange   = "x-peerlink-exchange"
	headerRoutingKey = "x-peerlink-routing-key"
)

// aside publishes to a dead-letter queue. It has a channel once it was needed.
type aside struct {
	broker *Broker
	queue  string

	mu       sync.Mutex
	channel  *amqp.Channel // nil, or it may be closed
	returned <-chan amqp.Return
}

// put publishes a copy of a delivery, and waits until RabbitMQ has confirmed
// it.
func (a *aside) put(ctx context.Context, d amqp.Delivery, reason string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, a.broker.opts.ConfirmTimeout, ErrNotConfirmed)
	defer cancel()
	ok, err := a.publish(ctx, asideCopy(d, reason))
	if err == nil && !ok {
		// Someone has deleted the dead-letter queue.
		err = a.broker.onDeclaring(ctx, func(d declarer) error { return d.queue(a.queue, nil) })
		if err == nil {
			ok, err = a.publish(ctx, asideCopy(d, reason))
		}
	}
	if err == nil && !ok {
		err = fmt.Errorf("%w: RabbitMQ returns it from queue %s", broker.ErrUnroutable, a.queue)
	}
	return err
}

// publish tells whether the queue exists.
func (a *aside) publish(ctx context.Context, m amqp.Publishing) (routed bool, err error) {
	l, err := a.broker.publishing.get(ctx)
	if err != nil {
		return false, err
	}
	if block := l.blocked(); block != nil {
		return false, block.err()
	}
	if a.channel == nil || a.channel.IsClosed() {
		returned := make(chan amqp.Return, 1)
		if a.channel, err = a.broker.open(ctx, l, func(ch *amqp.Channel) error {
			ch.NotifyReturn(returned)
			return explain(ch.Confirm(false))
		}); err != nil {
			return false, err
		}
		a.returned = returned
	}
	sent, err := a.channel.PublishWithDeferredConfirm("", a.queue, true, false, m)
	if err != nil {
		return false, explain(err)
	}
	select {
	case <-sent.Done():
	case <-ctx.Done():
		a.reset()
		return false, context.Cause(ctx)
	}
	if !sent.Acked() { // or the connection is lost
		a.reset()
		return false, fmt.Errorf("%w: RabbitMQ refuses it", ErrNotConfirmed)
	}
	select {
	case <-a.returned: // came before the confirmation
		return false, nil
	default:
		return true, nil
	}
}

// reset gives up a channel of which it is unclear what is still to come.
func (a *aside) reset() {
	go a.channel.Close()
	a.channel = nil
}

func (a *aside) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.channel != nil {
		a.reset()
	}
}

// asideCopy returns a message with the properties of a delivery, except for
// those with which RabbitMQ would refuse it, let it expire, or deliver it
// somewhere else (CC and BCC).
func asideCopy(d amqp.Delivery, reason string) amqp.Publishing {
	headers := make(amqp.Table, len(d.Headers)+3)
	if sizeOf(d.Headers) <= maxHeaders {
		maps.Copy(headers, d.Headers)
	}
	delete(headers, "CC")
	delete(headers, "BCC")
	headers[headerReason] = reasonText(reason)
	headers[headerExchange] = d.Exchange
	headers[headerRoutingKey] = d.RoutingKey
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
