package rabbitmq

import (
	"context"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// probe publishes empty messages. RabbitMQ reports that it is short of memory or disk only
// on connections that publish in this state. The messages are routed to an exclusive queue
// of the connection, which drops them: unroutable messages would appear in the metrics
// that operators use to find errors.
type probe struct {
	broker *Broker
	pause  time.Duration // probePause, except in tests
	busy   atomic.Bool   // a probe is in progress

	// The following fields are used by the goroutine that has set busy only.
	open    *probeChannel // nil if there was none; may be closed
	refused *refusedProbe // nil unless RabbitMQ did not permit the last probe
}

// probeChannel is a channel with the queue for probes.
type probeChannel struct {
	*amqp.Channel
	live  *liveConn
	ended <-chan *amqp.Error // receives why RabbitMQ has closed the channel
	queue string
}

// refusedProbe is a probe that RabbitMQ has not permitted.
type refusedProbe struct {
	on *liveConn // the last connection for publishing
	at time.Time
}

// probePause is how long after a probe was not permitted another one is tried on the same
// connection. Each one is an error in RabbitMQ's log.
const probePause = time.Minute

// send publishes a message in the background, unless a probe is in progress, there was no
// connection yet, or RabbitMQ did not permit it a short time ago.
func (p *probe) send() {
	b := p.broker
	if b.declaring.latest() == nil && b.publishing.latest() == nil || !p.busy.CompareAndSwap(false, true) {
		return
	}
	if r := p.refused; r != nil && r.on == b.publishing.latest() && time.Since(r.at) < p.pause {
		p.busy.Store(false)
		return
	}
	go func() {
		defer p.busy.Store(false)
		ctx, cancel := context.WithTimeout(b.life, b.opts.ConnectTimeout)
		defer cancel()
		p.note(p.publish(ctx))
	}()
}

// note logs when RabbitMQ begins, or ceases, not to permit probes. Other errors are
// reported by the operations that need the connection.
func (p *probe) note(permitted bool, err error) {
	log := p.broker.log
	switch {
	case saysCode(err, amqp.AccessRefused):
		if p.refused == nil {
			log.Warn("RabbitMQ does not permit probes: an alarm of RabbitMQ is not noticed before a message is to be stored; its user needs all permissions for queues amq.gen-*, see docs/queues.md", "err", err)
		}
		p.refused = &refusedProbe{p.broker.publishing.latest(), time.Now()}
	case permitted && p.refused != nil:
		p.refused = nil
		log.Info("RabbitMQ permits probes")
	}
}

// publish publishes a message. It reports whether RabbitMQ has permitted the previous one.
func (p *probe) publish(ctx context.Context) (permitted bool, err error) {
	if p.open != nil && p.open.IsClosed() {
		ended := p.open.ended
		p.open = nil
		select {
		case e := <-ended:
			if e != nil && saysCode(e, amqp.AccessRefused) { // to publish
				return false, explain(e)
			}
		default:
		}
	}
	permitted = p.open != nil
	if p.open == nil {
		var c *probeChannel
		l, ch, err := p.broker.publishing.open(ctx, func(_ *liveConn, ch *amqp.Channel) error {
			// If ctx ends, this goes on after open has returned.
			var err error
			c, err = newProbeChannel(ch)
			return err
		})
		if err != nil {
			return false, err
		}
		c.Channel, c.live = ch, l
		p.open = c
	}
	if p.open.live.blocked() != nil {
		return permitted, nil // known already
	}
	defer p.open.live.boundWrite(ctx)()
	return permitted, p.open.PublishWithContext(ctx, "", p.open.queue, false, false, amqp.Publishing{})
}

// newProbeChannel declares the queue.
func newProbeChannel(ch *amqp.Channel) (*probeChannel, error) {
	const autoDelete, exclusive = true, true
	ended := ch.NotifyClose(make(chan *amqp.Error, 1))
	q, err := ch.QueueDeclare("", false, autoDelete, exclusive, false, amqp.Table{"x-queue-type": string(Classic), "x-max-length": 0})
	return &probeChannel{ended: ended, queue: q.Name}, explain(err)
}
