package rabbitmq

import (
	"context"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"
)

// probe publishes empty messages. RabbitMQ reports that it is short of memory or disk only
// on connections that publish in this state. The messages are routed to an exclusive queue
// of the connection, which drops them: unroutable messages would appear in the metrics
// that operators use to find errors.
type probe struct {
	broker *Broker
	busy   atomic.Bool // a probe is in progress, or RabbitMQ does not permit the queue

	live    *liveConn
	channel *amqp.Channel // nil if there was none; may be closed
	queue   string
}

// send publishes a message in the background, unless a probe is in progress, or there was
// no connection yet.
func (p *probe) send() {
	b := p.broker
	if b.declaring.latest() == nil && b.publishing.latest() == nil || !p.busy.CompareAndSwap(false, true) {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(b.life, b.opts.ConnectTimeout)
		defer cancel()
		// Other errors are reported by the operations that need the connection.
		if err := p.publish(ctx); !saysCode(err, amqp.AccessRefused) {
			p.busy.Store(false)
		}
	}()
}

func (p *probe) publish(ctx context.Context) (err error) {
	if p.channel == nil || p.channel.IsClosed() {
		if p.live, p.channel, err = p.broker.publishing.open(ctx, p.prepare); err != nil {
			p.channel = nil
			return err
		}
	}
	if p.live.blocked() != nil {
		return nil // known already
	}
	defer p.live.bounded(ctx)()
	return p.channel.PublishWithContext(ctx, "", p.queue, false, false, amqp.Publishing{})
}

// prepare declares the queue.
func (p *probe) prepare(_ *liveConn, ch *amqp.Channel) error {
	const autoDelete, exclusive = true, true
	q, err := ch.QueueDeclare("", false, autoDelete, exclusive, false, amqp.Table{"x-queue-type": string(Classic), "x-max-length": 0})
	p.queue = q.Name
	return explain(err)
}
