package rabbitmq

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
)

// Messages of a creditors agent, published to the exchange creditorsOut, that match no peer are
// routed to the alternate exchange loopbackFilter, which the application may bind queues to.
const (
	creditorsOut   = "creditors_out"
	loopbackFilter = "ca.loopback_filter"
)

func peerExchange(q broker.PeerBinding) string { return q.Prefix + ".x." + q.PeerID }

// defaultDeadLetterSuffix is what the reference appends to the name of a queue.
const defaultDeadLetterSuffix = ".XQ"

// referenceDeadLetterQueue returns the name of the queue to which RabbitMQ itself moves messages
// that a program has rejected: the dead-letter queue that the reference declares.
func referenceDeadLetterQueue(queue string) string { return queue + defaultDeadLetterSuffix }

// deadLetterQueue returns the name of the queue to which DeadLetter moves messages: the same as
// referenceDeadLetterQueue, unless [Options].DeadLetterSuffix is another suffix.
func (b *Broker) deadLetterQueue(queue string) string { return queue + b.opts.DeadLetterSuffix }

// deadLetterQueues returns the names of all queues that may have dead letters of a queue.
func (b *Broker) deadLetterQueues(queue string) []string {
	if b.opts.DeadLetterSuffix == defaultDeadLetterSuffix {
		return []string{referenceDeadLetterQueue(queue)}
	}
	return []string{b.deadLetterQueue(queue), referenceDeadLetterQueue(queue)}
}

// deadLettering returns the arguments of a queue with a dead-letter queue.
func deadLettering(queue string) amqp.Table {
	return amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": referenceDeadLetterQueue(queue)}
}

// withDeclarer calls do with a channel of the connection for declaring. If it returns early,
// because ctx ends or RabbitMQ does not answer, do may still be running: a do with a result is
// called by declarerResult.
func (b *Broker) withDeclarer(ctx context.Context, do func(declarer) error) error {
	l, ch, err := b.declaring.open(ctx, func(l *liveConn, ch *amqp.Channel) error {
		return do(declarer{live: l, ch: ch, queueType: b.opts.QueueType})
	})
	if err == nil {
		l.closeChannel(ch)
	}
	return err
}

// declarerResult is withDeclarer for a do with a result. It returns the result and the error of do;
// if it returns before do has ended, the zero value and another error.
func declarerResult[T any](ctx context.Context, b *Broker, do func(declarer) (T, error)) (T, error) {
	var mu sync.Mutex // guards result, since do may end later than withDeclarer
	var result T
	err := b.withDeclarer(ctx, func(d declarer) error {
		r, err := do(d)
		mu.Lock()
		defer mu.Unlock()
		result = r
		return err
	})
	mu.Lock()
	defer mu.Unlock()
	return result, err
}

// declarer declares objects, and queries their state in RabbitMQ.
type declarer struct {
	live      *liveConn
	ch        *amqp.Channel
	queueType QueueType
	created   *objects // unless nil, collects what is created
}

// objects are names of objects in RabbitMQ.
type objects struct {
	queues, exchanges []string
}

// declare declares the objects of a peer in reverse order of routing: when a message can
// reach an exchange, the queues that it is routed to exist. Then it removes the bindings of
// before, the previous declaration or nil, that are not in q.
func (d declarer) declare(q broker.PeerBinding, before *broker.PeerBinding) error {
	if err := d.declareExchange(peerExchange(q), "x-random", nil); err != nil {
		if hasReplyCode(err, amqp.CommandInvalid) {
			err = fmt.Errorf("%w; is the plugin rabbitmq_random_exchange enabled?", err)
		}
		return err
	}
	for _, queue := range q.Queues {
		for _, name := range d.live.broker.deadLetterQueues(queue) {
			if err := d.declareQueue(name, nil); err != nil {
				return err
			}
		}
		d.examineArguments(d.live.broker.deadLetterQueue(queue), nil)
		if err := d.declareQueue(queue, deadLettering(queue)); err != nil {
			return err
		}
		d.reportLimit(queue)
		d.examineArguments(queue, d.kind(queue).usualArguments(queue))
		if err := d.bindQueue(queue, peerExchange(q)); err != nil {
			return fmt.Errorf("bind queue %s: %w", queue, explain(err))
		}
		d.live.recordAnswer() // a peer may have many queues, and a distant RabbitMQ take long for them
	}
	if err := d.declareOutgoing(q); err != nil {
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

// unbindPeer removes the binding of a peer's exchange, and that of the previous declaration
// before, which may be nil.
func (d declarer) unbindPeer(q broker.PeerBinding, before *broker.PeerBinding) error {
	if err := d.unbindExchange(q); err != nil || before == nil {
		return err
	}
	return d.unbindExchange(*before)
}

// declareOutgoing declares the exchange to which applications publish messages for the peer.
func (d declarer) declareOutgoing(q broker.PeerBinding) error {
	exchangeType := "topic"
	if q.Fanout {
		exchangeType = "fanout"
	}
	var args amqp.Table
	if q.Exchange == creditorsOut {
		if err := d.declareExchange(loopbackFilter, "headers", nil); err != nil {
			return err
		}
		args = amqp.Table{"alternate-exchange": loopbackFilter}
	}
	return d.declareExchange(q.Exchange, exchangeType, args)
}

// declareExchange declares an exchange. Unlike a queue, an existing one must have this type and
// these arguments.
func (d declarer) declareExchange(name, exchangeType string, args amqp.Table) error {
	exists := true
	if d.created != nil {
		var err error
		if exists, err = d.exchangeExists(name, exchangeType); err != nil {
			return err
		}
	}
	if err := d.ch.ExchangeDeclare(name, exchangeType, true, false, false, false, args); err != nil {
		return fmt.Errorf("exchange %s: %w", name, explain(err))
	}
	if !exists {
		d.created.exchanges = append(d.created.exchanges, name)
	}
	return nil
}

// exchangeExists reports whether there is an exchange with this name.
func (d declarer) exchangeExists(name, exchangeType string) (bool, error) {
	ch, err := d.live.Channel() // RabbitMQ closes it if there is no exchange
	if err != nil {
		return false, explain(err)
	}
	defer ch.Close()
	err = ch.ExchangeDeclarePassive(name, exchangeType, true, false, false, false, nil)
	switch {
	case hasReplyCode(err, amqp.NotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("exchange %s: %w", name, explain(err))
	}
	return true, nil
}

// declareQueue declares a queue unless it exists. An existing one is used regardless of
// its type and arguments: declaring it with others would fail.
func (d declarer) declareQueue(name string, args amqp.Table) error {
	_, exists, err := d.passiveDeclare(name)
	if err != nil || exists {
		return err
	}
	if _, err := d.ch.QueueDeclare(name, true, false, false, false, d.withQueueType(args)); err != nil {
		return fmt.Errorf("queue %s: %w", name, explain(err))
	}
	if d.created != nil {
		d.created.queues = append(d.created.queues, name)
	}
	return nil
}

// passiveDeclare returns RabbitMQ's counts of a queue, and whether the queue exists.
func (d declarer) passiveDeclare(name string) (q amqp.Queue, exists bool, err error) {
	ch, err := d.live.Channel() // RabbitMQ closes it if there is no queue
	if err != nil {
		return q, false, explain(err)
	}
	defer ch.Close()
	q, err = ch.QueueDeclarePassive(name, true, false, false, false, nil)
	switch {
	case hasReplyCode(err, amqp.NotFound):
		return q, false, nil
	case err != nil:
		return q, false, fmt.Errorf("queue %s: %w", name, explain(err))
	}
	return q, true, nil
}

// withQueueType returns args and the arguments for the configured queue type.
func (d declarer) withQueueType(args amqp.Table) amqp.Table {
	if d.queueType == Classic {
		return args // no type argument, as in the reference
	}
	typed := amqp.Table{"x-queue-type": string(d.queueType)}
	for name, value := range args {
		typed[name] = value
	}
	if d.major() >= 4 {
		// RabbitMQ 4 drops a message after 20 deliveries. A peer that is unreachable for a
		// long time causes more than 20. (RabbitMQ 3 has no limit, and no value for "no
		// limit".)
		typed["x-delivery-limit"] = noLimit
	}
	return typed
}

// major returns the major version of RabbitMQ, or 0 if it is unknown.
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
func (d declarer) unbindExchange(q broker.PeerBinding) error {
	return d.onOwnChannel(func(ch *amqp.Channel) error {
		return ch.ExchangeUnbind(peerExchange(q), q.BindingKey, q.Exchange, false, nil)
	})
}

// bindQueue binds a queue to a peer's exchange, with the queue's name as the key, as in the
// reference. It removes the binding without a key that earlier versions made: with two
// bindings, a queue would get twice as many messages as the others.
func (d declarer) bindQueue(queue, exchange string) error {
	if err := d.ch.QueueBind(queue, queue, exchange, false, nil); err != nil {
		return err
	}
	return d.ch.QueueUnbind(queue, "", exchange, nil)
}

// unbindQueue removes the bindings of a queue to a peer's exchange, as far as they exist.
func (d declarer) unbindQueue(queue, exchange string) error {
	return d.onOwnChannel(func(ch *amqp.Channel) error {
		if err := ch.QueueUnbind(queue, "", exchange, nil); err != nil {
			return err
		}
		return ch.QueueUnbind(queue, queue, exchange, nil)
	})
}

// unbindFormer unbinds those of the queues that exist from an exchange, and returns those
// that have messages.
func (d declarer) unbindFormer(exchange string, queues []string) (waiting []string, err error) {
	for _, queue := range queues {
		_, exists, err := d.passiveDeclare(queue)
		if err != nil {
			return nil, err
		}
		if !exists {
			continue
		}
		if err = d.unbindQueue(queue, exchange); err != nil {
			return nil, err
		}
		n, _, err := d.count(queue)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			waiting = append(waiting, queue)
		}
		d.live.recordAnswer() // there may be many queues
	}
	return waiting, nil
}

// onOwnChannel calls do, which unbinds something, with a channel of its own: if one end of the
// binding does not exist, RabbitMQ closes the channel, and onOwnChannel returns nil.
func (d declarer) onOwnChannel(do func(*amqp.Channel) error) error {
	ch, err := d.live.Channel()
	if err != nil {
		return explain(err)
	}
	defer ch.Close()
	if err := do(ch); err != nil && !hasReplyCode(err, amqp.NotFound) {
		return fmt.Errorf("unbind: %w", explain(err))
	}
	return nil
}
