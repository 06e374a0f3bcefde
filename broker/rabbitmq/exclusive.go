package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/internal/pause"
)

// Free reports [broker.ErrInUse] if the queue has a consumer: one of this
// process, of another, of the reference implementation, or of a connection of
// which RabbitMQ does not know yet that it is lost.
func (b *Broker) Free(ctx context.Context, queue string) error {
	if err := checkName("queue", queue); err != nil {
		return err
	}
	var consumers int
	err := b.onDeclaring(ctx, func(d declarer) (err error) {
		consumers, err = countConsumers(d.ch, queue)
		return err
	})
	var e *amqp.Error
	switch {
	case err == nil && consumers > 0:
		err = broker.ErrInUse
	case errors.As(err, &e) && e.Server && e.Recover:
		err = nil // it is Consume that reports, or declares, what is wrong with the queue
	}
	if err != nil {
		return fmt.Errorf("queue %s: %w", queue, err)
	}
	return nil
}

// forgetTime bounds the wait for a queue to forget a consumer.
const forgetTime = time.Second

// awaitFree waits for a moment until a queue is free. A quorum queue learns a
// little later than the client that a channel with a consumer is closed.
func (b *Broker) awaitFree(queue string) {
	ctx, cancel := context.WithTimeout(b.life, forgetTime)
	defer cancel()
	for errors.Is(b.Free(ctx, queue), broker.ErrInUse) {
		if pause.For(ctx, 5*time.Millisecond) != nil {
			return
		}
	}
}

// consumeAlone starts a consumer that has the queue for itself. receive is called when
// messages begin to arrive, before that is certain: they may be many.
func consumeAlone(ch *amqp.Channel, queue string, receive func(<-chan amqp.Delivery)) error {
	const exclusive = true
	deliveries, err := ch.Consume(queue, "", false, exclusive, false, false, nil)
	if err != nil {
		return explain(err)
	}
	receive(deliveries)
	// A quorum queue does not care about exclusive. Of two that come at the
	// same time, both may withdraw; their pauses differ.
	consumers, err := countConsumers(ch, queue)
	if err == nil && consumers > 1 {
		err = broker.ErrInUse
	}
	return err
}

func countConsumers(ch *amqp.Channel, queue string) (int, error) {
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	return q.Consumers, explain(err)
}

// whyNot gives RabbitMQ's answer to an attempt to consume the name by which
// callers know it.
func whyNot(err error) error {
	var e *amqp.Error
	switch {
	case !errors.As(err, &e) || !e.Server:
		return err
	case e.Code == amqp.NotFound:
		return fmt.Errorf("%w: %w", broker.ErrNoQueue, err)
	case e.Code == amqp.AccessRefused && strings.HasSuffix(e.Reason, inExclusiveUse):
		return fmt.Errorf("%w: %w", broker.ErrInUse, err)
	}
	return err
}

// inExclusiveUse is how RabbitMQ's reason for a refusal ends if it is not a
// missing permission: the code is the same.
const inExclusiveUse = " in exclusive use"
