package rabbitmq

import (
	"context"
	"crypto/rand"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// maxPublish is how many messages a queuePublisher publishes at once.
const maxPublish = 256

// queuePublisher publishes to a queue by its name, through the default exchange. It opens its
// channel on first use. It must be used by one goroutine at a time.
type queuePublisher struct {
	broker *Broker
	queue  string

	channel  *amqp.Channel // nil if there was none; may be closed
	live     *liveConn     // the channel's connection
	returned <-chan amqp.Return
}

// publish publishes up to maxPublish messages, and waits until RabbitMQ has confirmed all of
// them; only ctx bounds the wait. routed is false if RabbitMQ has returned a message because the
// queue does not exist; some of the messages may have been stored before the queue was deleted.
func (p *queuePublisher) publish(ctx context.Context, messages ...amqp.Publishing) (routed bool, err error) {
	if p.channel == nil || p.channel.IsClosed() {
		returned := make(chan amqp.Return, maxPublish)
		if p.live, p.channel, err = p.broker.publishing.open(ctx, func(_ *liveConn, ch *amqp.Channel) error {
			ch.NotifyReturn(returned)
			return explain(ch.Confirm(false))
		}); err != nil {
			return false, err
		}
		p.returned = returned
	}
	if block := p.live.blocked(); block != nil {
		return false, block.err()
	}
	defer p.live.limitWrite(ctx)()
	sent := make([]*amqp.DeferredConfirmation, len(messages))
	for i, m := range messages {
		if sent[i], err = p.channel.PublishWithDeferredConfirm("", p.queue, true, false, m); err != nil {
			p.reset()
			return false, explain(err)
		}
	}
	for _, s := range sent {
		select {
		case <-s.Done():
			p.live.recordAnswer()
		case <-ctx.Done():
			p.reset()
			return false, context.Cause(ctx)
		}
		if !s.Acked() {
			lost := p.channel.IsClosed()
			p.reset()
			if lost {
				return false, fmt.Errorf("%w: the connection was lost", errNotConfirmed)
			}
			return false, fmt.Errorf("%w: RabbitMQ refuses it, most likely because queue %s is full, with overflow reject-publish", errNotConfirmed, p.queue)
		}
	}
	return !anyReturned(p.returned), nil
}

// anyReturned reports whether RabbitMQ has returned a message, after all messages were
// confirmed: a return precedes the confirmation of the message.
func anyReturned(returned <-chan amqp.Return) bool {
	found := false
	for {
		select {
		case _, open := <-returned:
			if !open {
				return found
			}
			found = true
		default:
			return found
		}
	}
}

// reset closes the channel, on which further answers may arrive. The next publish opens
// another one.
func (p *queuePublisher) reset() {
	go p.live.closeChannel(p.channel)
	p.channel = nil
}

func (p *queuePublisher) close() {
	if p.channel != nil {
		p.reset()
	}
}

// checkPublishing returns an error if RabbitMQ accepts no messages now. RabbitMQ reports an alarm to a
// connection only when that publishes, and may still accept that message, so checkPublishing
// publishes two, one after the other, to a queue that does not exist. It waits for at most
// [Options.ConfirmTimeout].
func (b *Broker) checkPublishing(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, b.opts.ConfirmTimeout, errNotConfirmed)
	defer cancel()
	live, channel, err := b.publishing.open(ctx, func(_ *liveConn, ch *amqp.Channel) error { return explain(ch.Confirm(false)) })
	if err != nil {
		return err
	}
	defer func() { go live.closeChannel(channel) }()
	defer live.limitWrite(ctx)()
	block := live.blockage()
	nowhere := "peerlink-probe-" + rand.Text()
	for range 2 {
		sent, err := channel.PublishWithDeferredConfirm("", nowhere, false, false, amqp.Publishing{})
		if err != nil {
			return explain(err)
		}
		select {
		case <-sent.Done():
		case <-block.begun:
			return block.err()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		live.recordAnswer()
		if !sent.Acked() {
			return fmt.Errorf("%w: the connection was lost", errNotConfirmed)
		}
	}
	return nil
}
