package rabbitmq

import (
	"cmp"
	"errors"
	"regexp"
	"strconv"

	amqp "github.com/rabbitmq/amqp091-go"
)

// kind is what AMQP shows of a queue that exists.
type kind struct {
	queueType QueueType // "" if it is not known
	limit     int       // how often a message may come back; noLimit, or 0 if no argument says it
	era       int       // of RabbitMQ in which this was asked
}

const (
	// noLimit is the delivery limit of a queue that has none.
	noLimit = -1
	// defaultLimit is that of a quorum queue in RabbitMQ 4 that has no argument for it.
	defaultLimit = 20
)

// kind returns what a queue that exists is. RabbitMQ is asked once in an era.
func (d declarer) kind(queue string) kind {
	b := d.live.broker
	era := b.health.currentEra()
	b.mu.Lock()
	k := b.kinds[queue]
	b.mu.Unlock()
	if k.era == era {
		return k
	}
	k = d.askKind(queue)
	k.era = era
	b.mu.Lock()
	b.kinds[queue] = k
	b.mu.Unlock()
	return k
}

// askKind asks RabbitMQ for the type of a queue. AMQP has no question for that. But
// RabbitMQ refuses to declare a queue with other arguments than it has, and says which
// is another. One of these arguments is none of a quorum queue: with that, RabbitMQ
// never makes a queue, but does not look at it where there is one.
func (d declarer) askKind(queue string) kind {
	ch, err := d.live.Channel() // RabbitMQ closes it
	if err != nil {
		return kind{}
	}
	defer ch.Close()
	args := deadLettering(queue)
	args["x-queue-type"] = string(Quorum)
	args["x-delivery-limit"] = noLimit
	args["x-max-age"] = "none"
	_, err = ch.QueueDeclare(queue, true, false, false, false, args)
	return kindFrom(err)
}

// kindFrom returns what RabbitMQ's answer to askKind says. The zero kind is right where
// it says something else: what comes of it is that the log has nothing about the queue.
func kindFrom(answer error) kind {
	if answer == nil {
		return kind{queueType: Quorum, limit: noLimit}
	}
	reason, _ := refusedArguments(answer)
	m := inequivalent.FindStringSubmatch(reason)
	if m == nil {
		return kind{}
	}
	switch arg, current := m[1], m[2]; arg {
	case "x-queue-type":
		return kind{queueType: cmp.Or(QueueType(current), Classic)}
	case "x-delivery-limit":
		limit, _ := strconv.Atoi(current)
		return kind{queueType: Quorum, limit: limit}
	}
	return kind{}
}

// refusedArguments returns what RabbitMQ says when it refuses to declare a queue that
// exists, with other arguments than it has.
func refusedArguments(answer error) (reason string, ok bool) {
	var e *amqp.Error
	if !errors.As(answer, &e) || e.Code != amqp.PreconditionFailed {
		return "", false
	}
	return e.Reason, true
}

var inequivalent = regexp.MustCompile(`^PRECONDITION_FAILED - inequivalent arg '([^']*)' .* but current is (?:none|(?:the value )?'([^']*)')`)

// reportLimit reports in the log that RabbitMQ gives up messages of a queue, once for
// each limit: in a virtual host whose default type is quorum, it is the same for all
// queues.
func (d declarer) reportLimit(queue string) {
	k := d.kind(queue)
	if k.limit == 0 && k.queueType == Quorum && d.major() >= 4 {
		k.limit = defaultLimit
	}
	b := d.live.broker
	if k.limit <= 0 || !b.firstWithLimit(k.limit) {
		return
	}
	log := b.log.With("queue", queue, "limit", k.limit)
	if k.limit <= renewAt {
		log.Warn("the queue is a quorum queue with a low delivery limit: RabbitMQ removes messages that are not confirmed to it in time, raise the limit by a policy")
		return
	}
	log.Info("the queue is a quorum queue: unless a policy says otherwise, RabbitMQ removes a message that was given out more often than its delivery limit; messages are replaced by copies before that")
}

// firstWithLimit reports whether this is the first queue with a delivery limit.
func (b *Broker) firstWithLimit(limit int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	known := b.limits[limit]
	b.limits[limit] = true
	return !known
}
