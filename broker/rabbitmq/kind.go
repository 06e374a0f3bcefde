package rabbitmq

import (
	"cmp"
	"errors"
	"regexp"
	"strconv"

	amqp "github.com/rabbitmq/amqp091-go"
)

// kind is what can be found out about an existing queue with AMQP.
type kind struct {
	queueType QueueType // "" if unknown
	limit     int       // delivery limit; noLimit, or 0 if the queue has no argument for it
	epoch     int       // epoch in which this was found out
}

const (
	// noLimit is the delivery limit of a queue without a limit.
	noLimit = -1
	// defaultLimit is the limit of a quorum queue in RabbitMQ 4 without an argument for
	// it.
	defaultLimit = 20
)

// kind returns the kind of an existing queue. It asks RabbitMQ once in each epoch.
func (d declarer) kind(queue string) kind {
	b := d.live.broker
	epoch := b.health.currentEpoch()
	b.mu.Lock()
	k := b.kinds[queue]
	b.mu.Unlock()
	if k.epoch == epoch {
		return k
	}
	k = d.probeKind(queue)
	k.epoch = epoch
	b.mu.Lock()
	b.kinds[queue] = k
	b.mu.Unlock()
	return k
}

// probeKind determines the type of a queue. AMQP has no method for that. But RabbitMQ
// refuses to declare an existing queue with different arguments, and names one of them in
// its answer. One of the arguments used here is invalid for a quorum queue: with it,
// RabbitMQ never creates a queue, but ignores it if the queue exists.
func (d declarer) probeKind(queue string) kind {
	ch, err := d.live.Channel() // RabbitMQ closes the channel
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

// kindFrom interprets RabbitMQ's answer to probeKind. It returns the zero kind for any other
// answer, with the only effect that reportLimit logs nothing about the queue.
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

// refusedArguments returns RabbitMQ's reason for refusing to declare an existing queue
// with different arguments.
func refusedArguments(answer error) (reason string, ok bool) {
	var e *amqp.Error
	if !errors.As(answer, &e) || e.Code != amqp.PreconditionFailed {
		return "", false
	}
	return e.Reason, true
}

var inequivalent = regexp.MustCompile(`^PRECONDITION_FAILED - inequivalent arg '([^']*)' .* but current is (?:none|(?:the value )?'([^']*)'(?: of type '([^']*)')?)`)

// reportLimit logs that RabbitMQ drops messages of a queue after too many deliveries, once
// for each limit: in a virtual host with quorum as the default type, all queues have the
// same.
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

// firstWithLimit reports whether this is the first queue with this delivery limit.
func (b *Broker) firstWithLimit(limit int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	known := b.limits[limit]
	b.limits[limit] = true
	return !known
}
