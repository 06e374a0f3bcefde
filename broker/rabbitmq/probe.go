package rabbitmq

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// prober publishes probes, which are empty messages: RabbitMQ reports a memory or disk alarm only
// on connections on which messages are published during the alarm. The probes are routed to an
// exclusive queue of the connection, which drops them: unroutable messages would appear in the
// metrics that operators use to find errors.
type prober struct {
	broker *Broker
	pause  time.Duration // probePause, except in tests
	busy   atomic.Bool   // a probe is being published

	// Only the goroutine that has set busy uses the following fields.
	current     *probeChannel // of the last probe; nil if there was none; may be closed
	queue       string        // the queue for probes; "" before it is declared
	queueOn     *liveConn     // the connection to which the queue is exclusive
	lastRefused *refusedProbe // nil unless RabbitMQ did not permit the last probe
}

// probeChannel is a channel on which probes are published.
type probeChannel struct {
	*amqp.Channel
	live  *liveConn
	since time.Time          // when the channel was opened
	ended <-chan *amqp.Error // receives why RabbitMQ has closed the channel
	queue string             // the queue for probes of the connection
}

// refusedPermission is a permission that a probe needs, and that RabbitMQ has refused.
type refusedPermission struct {
	name string // as an operator reads it
	err  error  // the answer of RabbitMQ
}

func (r *refusedPermission) Error() string { return r.err.Error() }

func (r *refusedPermission) Unwrap() error { return r.err }

// The permissions that a probe needs.
const (
	declareProbeQueue = "all, for queues amq.gen-*"
	publishProbe      = "write, for exchange amq.default"
)

// refusedProbe is a probe that RabbitMQ has not permitted.
type refusedProbe struct {
	on *liveConn // the connection for publishing at that time
	at time.Time
}

// probePause is the time after a probe that was not permitted until the next probe on the same
// connection. Each such probe causes an error in RabbitMQ's log.
const probePause = time.Minute

// refusalTime is longer than RabbitMQ takes to refuse a probe.
const refusalTime = time.Second

// send publishes a probe in the background, unless another one is being published, no connection
// was opened yet, or the last probe was not permitted on the same connection and probePause is
// not over.
func (p *prober) send() {
	b := p.broker
	if b.declaring.latest() == nil && b.publishing.latest() == nil || !p.busy.CompareAndSwap(false, true) {
		return
	}
	if r := p.lastRefused; r != nil && r.on == b.publishing.latest() && time.Since(r.at) < p.pause {
		p.busy.Store(false)
		return
	}
	go func() {
		defer p.busy.Store(false)
		ctx, cancel := context.WithTimeout(b.life, b.opts.ConnectTimeout)
		defer cancel()
		p.recordResult(p.publish(ctx))
	}()
}

// recordResult records whether RabbitMQ permits probes, and logs changes; its arguments are
// the results of publish. It ignores errors that are not about permissions: the operations that
// need the connection report them.
func (p *prober) recordResult(permitted bool, err error) {
	log := p.broker.log
	var refused *refusedPermission
	switch {
	case errors.As(err, &refused):
		if p.lastRefused == nil {
			log.Warn("RabbitMQ does not permit probes: an alarm of RabbitMQ is noticed only when a message is published; its user needs more permissions, see docs/queues.md", "permission", refused.name, "err", refused.err)
		}
		p.lastRefused = &refusedProbe{p.broker.publishing.latest(), time.Now()}
	case permitted && p.lastRefused != nil:
		p.lastRefused = nil
		log.Info("RabbitMQ permits probes")
	}
}

// publish publishes a probe. RabbitMQ answers only if it does not permit the probe: it closes the
// channel, and the next call of publish returns the reason. permitted is true if RabbitMQ has
// permitted earlier probes, because their channel is still open after refusalTime. If RabbitMQ does not permit the
// queue or an earlier probe, err is a [*refusedPermission]. In all other cases it is not known
// whether RabbitMQ permits probes.
func (p *prober) publish(ctx context.Context) (permitted bool, err error) {
	if p.current != nil && p.current.IsClosed() {
		ended := p.current.ended
		p.current = nil
		select {
		case e := <-ended:
			if e != nil && hasReplyCode(e, amqp.AccessRefused) { // the user may not publish
				return false, &refusedPermission{publishProbe, explain(e)}
			}
		default:
		}
	}
	permitted = p.current != nil && time.Since(p.current.since) > refusalTime
	if p.current == nil {
		var c *probeChannel
		queue, queueOn := p.queue, p.queueOn
		l, ch, err := p.broker.publishing.open(ctx, func(l *liveConn, ch *amqp.Channel) error {
			// If ctx ends, this function may go on after open has returned.
			var err error
			if queueOn != l {
				queue = ""
			}
			c, err = newProbeChannel(ch, queue)
			return err
		})
		if hasReplyCode(err, amqp.AccessRefused) {
			return false, &refusedPermission{declareProbeQueue, err}
		}
		if err != nil {
			return false, err
		}
		c.Channel, c.live, c.since = ch, l, time.Now()
		p.current, p.queue, p.queueOn = c, c.queue, l
	}
	if p.current.live.blocked() != nil {
		return permitted, nil // the alarm is known already
	}
	defer p.current.live.limitWrite(ctx)()
	return permitted, p.current.PublishWithContext(ctx, "", p.current.queue, false, false, amqp.Publishing{})
}

// newProbeChannel returns a channel for probes to a queue. If queue is empty, newProbeChannel declares
// one. RabbitMQ deletes the queue only when its connection ends, so later channels of the
// connection must use the same one.
func newProbeChannel(ch *amqp.Channel, queue string) (*probeChannel, error) {
	const autoDelete, exclusive = true, true
	ended := ch.NotifyClose(make(chan *amqp.Error, 1))
	if queue != "" {
		return &probeChannel{ended: ended, queue: queue}, nil
	}
	q, err := ch.QueueDeclare("", false, autoDelete, exclusive, false, amqp.Table{"x-queue-type": string(Classic), "x-max-length": 0})
	return &probeChannel{ended: ended, queue: q.Name}, explain(err)
}
