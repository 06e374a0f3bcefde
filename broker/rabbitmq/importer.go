package rabbitmq

import (
	"context"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
)

// Imported is a message of an application for a peer that was stored by another broker.
type Imported struct {
	broker.Outgoing
	// Exchange and RoutingKey are the exchange and the routing key with which the application has sent the
	// message; both are "" if they are not known.
	Exchange, RoutingKey string
}

// Importer puts messages that were stored by another broker into a peer's queue, and into its dead-letter
// queue. [Broker.Bind] must have declared the queues. An Importer must be used by one goroutine at a time.
type Importer struct{ queue, deadLetters queuePublisher }

// Import returns an Importer for a queue. It does not use the connection to RabbitMQ yet. The caller must call
// [Importer.Close].
func (b *Broker) Import(queue string) *Importer {
	return &Importer{queuePublisher{broker: b, queue: queue}, queuePublisher{broker: b, queue: b.deadLetterQueue(queue)}}
}

// Put puts up to 256 messages at the end of the queue, in order, and returns when RabbitMQ has confirmed all
// of them. They are persistent, and have the exchange and routing key of the application in the same
// headers as other messages that peerlink has copied into a queue. After an error, some of them may be in
// the queue. Put returns [broker.ErrNoQueue] if the queue does not exist, and [ErrInvalid] for more than 256
// messages. It waits for at most [Options.ConfirmTimeout].
func (i *Importer) Put(ctx context.Context, messages []Imported) error {
	var copies []amqp.Publishing
	for _, m := range messages {
		p := importedCopy(m.Outgoing)
		if m.Exchange != "" {
			p.Headers[headerExchange], p.Headers[headerRoutingKey] = m.Exchange, m.RoutingKey
		}
		copies = append(copies, p)
	}
	return i.queue.putAll(ctx, copies)
}

// PutDeadLetters is [Importer.Put] for the dead-letter queue: the messages have the reason and the time in
// the headers of a dead letter of this broker.
func (i *Importer) PutDeadLetters(ctx context.Context, messages []broker.DeadLetter) error {
	var copies []amqp.Publishing
	for _, m := range messages {
		p := importedCopy(m.Outgoing)
		p.Headers[headerReason] = reasonText(m.Reason)
		p.Headers[headerTime] = m.At.Truncate(time.Second) // AMQP's times are seconds
		copies = append(copies, p)
	}
	return i.deadLetters.putAll(ctx, copies)
}

// Close releases the channels to RabbitMQ.
func (i *Importer) Close() error {
	i.queue.close()
	i.deadLetters.close()
	return nil
}

// importedCopy returns a persistent message for AMQP, with an empty table of headers.
func importedCopy(m broker.Outgoing) amqp.Publishing {
	return amqp.Publishing{
		Headers:      make(amqp.Table),
		ContentType:  m.ContentType,
		DeliveryMode: amqp.Persistent,
		Type:         m.Type,
		Body:         m.Body,
	}
}

// putAll publishes up to maxPublish messages, and waits for up to [Options.ConfirmTimeout] until RabbitMQ
// has confirmed all of them.
func (p *queuePublisher) putAll(ctx context.Context, messages []amqp.Publishing) error {
	if len(messages) > maxPublish {
		return fmt.Errorf("%w: %d messages at once, at most %d are possible", ErrInvalid, len(messages), maxPublish)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.broker.opts.ConfirmTimeout, errNotConfirmed)
	defer cancel()
	routed, err := p.publish(ctx, messages...)
	if err == nil && !routed {
		err = broker.ErrNoQueue
	}
	if err != nil {
		return fmt.Errorf("put messages into queue %s: %w", p.queue, err)
	}
	return nil
}
