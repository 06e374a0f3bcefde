package rabbitmq

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
)

// Messages of a creditors agent that match no peer are routed to the alternate exchange,
// which the application may bind queues to.
const (
	creditorsOut   = "creditors_out"
	loopbackFilter = "ca.loopback_filter"
)

func peerExchange(q broker.PeerQueue) string { return q.Prefix + ".x." + q.PeerID }

// deadLetterSuffix is what the reference appends to the name of a queue.
const deadLetterSuffix = ".XQ"

// deadLetterQueue returns the name of the queue to which RabbitMQ itself moves dead
// letters.
func deadLetterQueue(queue string) string { return queue + deadLetterSuffix }

// deadLetterQueueOf returns the name of the queue to which DeadLetter moves messages: the
// dead-letter queue, unless [Options].AsideSuffix names another one.
func (b *Broker) deadLetterQueueOf(queue string) string { return queue + b.opts.AsideSuffix }

// deadLetterQueues returns the names of all queues that may have dead letters.
func (b *Broker) deadLetterQueues(queue string) []string {
	if b.opts.AsideSuffix == deadLetterSuffix {
		return []string{deadLetterQueue(queue)}
	}
	return []string{b.deadLetterQueueOf(queue), deadLetterQueue(queue)}
}

// deadLettering returns the arguments of a queue with a dead-letter queue.
func deadLettering(queue string) amqp.Table {
	return amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": deadLetterQueue(queue)}
}

func (b *Broker) onDeclaring(ctx context.Context, do func(declarer) error) error {
	l, ch, err := b.declaring.open(ctx, func(l *liveConn, ch *amqp.Channel) error {
		return do(declarer{live: l, ch: ch, queueType: b.opts.QueueType})
	})
	if err == nil {
		l.closeChannel(ch)
	}
	return err
}

// declarer declares objects.
type declarer struct {
	live      *liveConn
	ch        *amqp.Channel
	queueType QueueType
	missing   *[]string // unless nil, collects the names of the queues that are created
}

// declare declares the objects in reverse order of routing: when a message can reach an
// exchange, the queues behind it exist.
func (d declarer) declare(q broker.PeerQueue, before *broker.PeerQueue) error {
	if err := d.exchange(peerExchange(q), "x-random", nil); err != nil {
		if saysCode(err, amqp.CommandInvalid) {
			err = fmt.Errorf("%w; is the plugin rabbitmq_random_exchange enabled?", err)
		}
		return err
	}
	for _, queue := range q.Queues {
		for _, name := range d.live.broker.deadLetterQueues(queue) {
			if err := d.queue(name, nil); err != nil {
				return err
			}
		}
		d.noteRisk(d.live.broker.deadLetterQueueOf(queue), nil)
		if err := d.queue(queue, deadLettering(queue)); err != nil {
			return err
		}
		d.reportLimit(queue)
		d.noteRisk(queue, d.kind(queue).usualArguments(queue))
		if err := d.bindQueue(queue, peerExchange(q)); err != nil {
			return fmt.Errorf("bind queue %s: %w", queue, explain(err))
		}
	}
	if err := d.outgoing(q); err != nil {
		return err
	}
	if err := d.ch.ExchangeBind(peerExchange(q), q.BindingKey, q.Exchange, false, nil); err != nil {
		return fmt.Errorf("bind exchange %s: %w", peerExchange(q), explain(err))
	}
	if before == nil {
		return nil
	}
	for _, queue := range before.Queues {
		if !slices.Contains(q.Queues, queue) {
			if err := d.unbindQueue(queue, peerExchange(*before)); err != nil {
				return err
			}
		}
	}
	if before.Exchange == q.Exchange && before.BindingKey == q.BindingKey && before.Prefix == q.Prefix {
		return nil
	}
	return d.unbindExchange(*before)
}

func (d declarer) release(q broker.PeerQueue, before *broker.PeerQueue) error {
	if err := d.unbindExchange(q); err != nil || before == nil {
		return err
	}
	return d.unbindExchange(*before)
}

// outgoing declares the exchange to which the applications publish.
func (d declarer) outgoing(q broker.PeerQueue) error {
	kind := "topic"
	if q.Fanout {
		kind = "fanout"
	}
	var args amqp.Table
	if q.Exchange == creditorsOut {
		if err := d.exchange(loopbackFilter, "headers", nil); err != nil {
			return err
		}
		args = amqp.Table{"alternate-exchange": loopbackFilter}
	}
	return d.exchange(q.Exchange, kind, args)
}

func (d declarer) exchange(name, kind string, args amqp.Table) error {
	if err := d.ch.ExchangeDeclare(name, kind, true, false, false, false, args); err != nil {
		return fmt.Errorf("exchange %s: %w", name, explain(err))
	}
	return nil
}

// queue declares a queue unless it exists. An existing one is used regardless of its type
// and arguments: declaring it with others would fail.
func (d declarer) queue(name string, args amqp.Table) error {
	_, exists, err := d.passiveDeclare(name)
	if err != nil || exists {
		return err
	}
	if _, err := d.ch.QueueDeclare(name, true, false, false, false, d.ofType(args)); err != nil {
		return fmt.Errorf("queue %s: %w", name, explain(err))
	}
	if d.missing != nil {
		*d.missing = append(*d.missing, name)
	}
	return nil
}

// count returns how many messages of a queue are not delivered, and whether the queue
// exists.
func (d declarer) count(name string) (n int, exists bool, err error) {
	q, exists, err := d.passiveDeclare(name)
	return q.Messages, exists, err
}

// passiveDeclare returns RabbitMQ's counts of a queue, and whether the queue exists.
func (d declarer) passiveDeclare(name string) (q amqp.Queue, exists bool, err error) {
	probe, err := d.live.Channel() // RabbitMQ closes it if there is no queue
	if err != nil {
		return q, false, explain(err)
	}
	defer probe.Close()
	q, err = probe.QueueDeclarePassive(name, true, false, false, false, nil)
	switch {
	case saysCode(err, amqp.NotFound):
		return q, false, nil
	case err != nil:
		return q, false, fmt.Errorf("queue %s: %w", name, explain(err))
	}
	return q, true, nil
}

// ofType adds the arguments for the configured queue type.
func (d declarer) ofType(args amqp.Table) amqp.Table {
	if d.queueType == Classic {
		return args // no type argument, as in the reference
	}
	typed := amqp.Table{"x-queue-type": string(d.queueType)}
	for name, value := range args {
		typed[name] = value
	}
	if d.major() >= 4 {
		// RabbitMQ 4 drops a message after 20 deliveries. A peer that is away for a long
		// time causes more than that. (RabbitMQ 3 has no limit, and no value for "no
		// limit".)
		typed["x-delivery-limit"] = noLimit
	}
	return typed
}

// major returns the major version of RabbitMQ.
func (d declarer) major() int {
	version, _ := d.live.Properties["version"].(string)
	return majorOf(version)
}

func majorOf(version string) int {
	major, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(major)
	if err != nil {
		return 0
	}
	return n
}

// unbindExchange removes the binding of a peer's exchange, if it exists.
func (d declarer) unbindExchange(q broker.PeerQueue) error {
	return d.unbind(func(ch *amqp.Channel) error {
		return ch.ExchangeUnbind(peerExchange(q), q.BindingKey, q.Exchange, false, nil)
	})
}

// bindQueue makes the only binding between a peer's exchange and a queue. Its key is the
// queue's name, as in the reference: with two bindings, a queue would get twice as many
// messages as the others. Earlier versions bound the queue without a key; that binding is
// removed.
func (d declarer) bindQueue(queue, exchange string) error {
	if err := d.ch.QueueBind(queue, queue, exchange, false, nil); err != nil {
		return err
	}
	return d.ch.QueueUnbind(queue, "", exchange, nil)
}

func (d declarer) unbindQueue(queue, exchange string) error {
	return d.unbind(func(ch *amqp.Channel) error {
		if err := ch.QueueUnbind(queue, "", exchange, nil); err != nil {
			return err
		}
		return ch.QueueUnbind(queue, queue, exchange, nil)
	})
}

// unbindFormer unbinds those of the queues that exist, and returns those that have messages.
func (d declarer) unbindFormer(exchange string, queues []string) (waiting []string, err error) {
	for _, queue := range queues {
		q, exists, err := d.passiveDeclare(queue)
		if err != nil {
			return nil, err
		}
		if !exists {
			continue
		}
		if err = d.unbindQueue(queue, exchange); err != nil {
			return nil, err
		}
		if q, _, err = d.passiveDeclare(queue); err != nil {
			return nil, err
		}
		if q.Messages > 0 {
			waiting = append(waiting, queue)
		}
	}
	return waiting, nil
}

// unbind uses a channel of its own: RabbitMQ closes it if one of the ends does not exist.
func (d declarer) unbind(do func(*amqp.Channel) error) error {
	ch, err := d.live.Channel()
	if err != nil {
		return explain(err)
	}
	defer ch.Close()
	if err := do(ch); err != nil && !saysCode(err, amqp.NotFound) {
		return fmt.Errorf("unbind: %w", explain(err))
	}
	return nil
}
