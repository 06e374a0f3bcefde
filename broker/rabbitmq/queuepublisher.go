package rabbitmq

import (
	"context"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// maxPublish is how many messages a queuePublisher publishes at once.
const maxPublish = 256

// queuePublisher publishes to a queue by its name, through the default exchange. It opens
// its channel on first use, and is used by one goroutine at a time.
type queuePublisher struct {
	broker *Broker
	queue  string

	channel  *amqp.Channel // nil if there was none; may be closed
	live     *liveConn     // the channel's connection
	returned <-chan amqp.Return
}

// publish publishes up to maxPublish messages, and waits until RabbitMQ has confirmed all
// of them. routed reports whether the queue exists: if not, some of them may have been
// stored before the queue was deleted.
func (f *queuePublisher) publish(ctx context.Context, messages ...amqp.Publishing) (routed bool, err error) {
	if f.channel == nil || f.channel.IsClosed() {
		returned := make(chan amqp.Return, maxPublish)
		if f.live, f.channel, err = f.broker.publishing.open(ctx, func(_ *liveConn, ch *amqp.Channel) error {
			ch.NotifyReturn(returned)
			return explain(ch.Confirm(false))
		}); err != nil {
			return false, err
		}
		f.returned = returned
	}
	if block := f.live.blocked(); block != nil {
		return false, block.err()
	}
	defer f.live.bounded(ctx)()
	sent := make([]*amqp.DeferredConfirmation, len(messages))
	for i, m := range messages {
		if sent[i], err = f.channel.PublishWithDeferredConfirm("", f.queue, true, false, m); err != nil {
			f.reset()
			return false, explain(err)
		}
	}
	for _, s := range sent {
		select {
		case <-s.Done():
			f.live.noteAnswer()
		case <-ctx.Done():
			f.reset()
			return false, context.Cause(ctx)
		}
		if !s.Acked() { // or the connection was lost
			f.reset()
			return false, fmt.Errorf("%w: RabbitMQ refuses it", errNotConfirmed)
		}
	}
	return !anyReturned(f.returned), nil
}

// anyReturned reports whether RabbitMQ has returned a message. A return precedes the
// confirmation of the message. A channel that has ended sends no more returns.
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

// reset discards a channel on which further answers may arrive.
func (f *queuePublisher) reset() {
	go f.live.closeChannel(f.channel)
	f.channel = nil
}

func (f *queuePublisher) close() {
	if f.channel != nil {
		f.reset()
	}
}
