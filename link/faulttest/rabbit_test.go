//go:build linux

package faulttest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
)

// amqpConn is the connection of an application to RabbitMQ.
type amqpConn struct {
	conn  *amqp.Connection
	ch    *amqp.Channel
	inbox <-chan amqp.Delivery

	window  chan struct{} // has an element for each unconfirmed message
	mu      sync.Mutex
	last    uint64                 // the tag of the message published last
	waiting map[uint64]func(error) // by tag; nil when the channel has closed
}

// amqpWindow is the maximum number of unconfirmed and of unacknowledged messages.
const amqpWindow = 500

func dialAMQP(ctx context.Context, url, inbox string) (appConn, error) {
	conn, err := amqp.DialConfig(url, amqp.Config{Heartbeat: 2 * time.Second, Dial: amqp.DefaultDial(connectTimeout)})
	if err != nil {
		return nil, err
	}
	b := &amqpConn{conn: conn, window: make(chan struct{}, amqpWindow), waiting: make(map[uint64]func(error))}
	if b.ch, err = conn.Channel(); err == nil {
		if inbox == "" {
			err = b.openForSending()
		} else {
			err = b.openForReceiving(ctx, inbox)
		}
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return b, nil
}

// openForReceiving declares the objects of an application, and subscribes.
func (b *amqpConn) openForReceiving(ctx context.Context, inbox string) error {
	if err := b.ch.ExchangeDeclare(inbox, "topic", true, false, false, false, nil); err != nil {
		return err
	}
	if _, err := b.ch.QueueDeclare(inbox, true, false, false, false, nil); err != nil {
		return err
	}
	if err := b.ch.QueueBind(inbox, "#", inbox, false, nil); err != nil {
		return err
	}
	if err := b.ch.Qos(amqpWindow, 0, false); err != nil {
		return err
	}
	var err error
	b.inbox, err = b.ch.ConsumeWithContext(ctx, inbox, "", false, false, false, false, nil)
	return err
}

func (b *amqpConn) openForSending() error {
	// A returned message is confirmed after the return. Without buffers, the two are
	// received in this order.
	returns := b.ch.NotifyReturn(make(chan amqp.Return))
	confirmations := b.ch.NotifyPublish(make(chan amqp.Confirmation))
	go b.settle(returns, confirmations)
	return b.ch.Confirm(false)
}

// settle calls done for the messages until the channel closes.
func (b *amqpConn) settle(returns <-chan amqp.Return, confirmations <-chan amqp.Confirmation) {
	returned := make(map[string]bool)
	for {
		select {
		case r, open := <-returns:
			if !open {
				returns = nil
				continue
			}
			returned[r.MessageId] = true
		case c, open := <-confirmations:
			if !open {
				b.failWaiting()
				return
			}
			var err error
			if id := strconv.FormatUint(c.DeliveryTag, 10); returned[id] {
				delete(returned, id)
				err = broker.ErrUnroutable
			} else if !c.Ack {
				err = fmt.Errorf("RabbitMQ has not accepted message %s", id)
			}
			b.mu.Lock()
			done := b.waiting[c.DeliveryTag]
			delete(b.waiting, c.DeliveryTag)
			b.mu.Unlock()
			done(err)
			<-b.window
		}
	}
}

func (b *amqpConn) failWaiting() {
	b.mu.Lock()
	waiting := b.waiting
	b.waiting = nil
	b.mu.Unlock()
	for _, done := range waiting {
		done(amqp.ErrClosed)
		<-b.window
	}
}

func (b *amqpConn) send(ctx context.Context, exchange, routingKey, typ string, body []byte, done func(error)) error {
	select {
	case b.window <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	b.mu.Lock()
	if b.waiting == nil {
		b.mu.Unlock()
		<-b.window
		return amqp.ErrClosed
	}
	b.last++
	tag := b.last
	b.waiting[tag] = done
	b.mu.Unlock()
	err := b.ch.PublishWithContext(ctx, exchange, routingKey, true, false, amqp.Publishing{
		MessageId: strconv.FormatUint(tag, 10), DeliveryMode: amqp.Persistent, Type: typ, ContentType: "application/json", Body: body,
	})
	if err != nil {
		// When the channel closes, done is called.
		return b.conn.Close()
	}
	return nil
}

func (b *amqpConn) next(ctx context.Context) ([]byte, func() error, error) {
	select {
	case d, open := <-b.inbox:
		if !open {
			return nil, nil, amqp.ErrClosed
		}
		return d.Body, func() error { return d.Ack(false) }, nil
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

func (b *amqpConn) close() { _ = b.conn.Close() }

func leftInRabbitMQ(url, queue string) (left int, aside [][]byte, err error) {
	conn, err := amqp.Dial(url)
	if err != nil {
		return 0, nil, err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return 0, nil, err
	}
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		return 0, nil, err
	}
	for { // unacknowledged messages are requeued when the channel ends
		d, ok, err := ch.Get(queue+".XQ", false)
		if !ok || err != nil {
			return q.Messages, aside, err
		}
		aside = append(aside, d.Body)
	}
}
