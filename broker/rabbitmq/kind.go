package rabbitmq

import (
	"cmp"
	"errors"
	"regexp"
	"strconv"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

// kind is what can be found out about an existing queue with AMQP.
type kind struct {
	queueType QueueType // "" if unknown
	limit     int       // delivery limit of a quorum queue: its argument, or 0 if it has none and RabbitMQ's default or a policy decides; 0 for other types
	epoch     int       // health's epoch in which this was found out
}

const (
	// noLimit is the argument of a quorum queue without a delivery limit.
	noLimit = -1
	// defaultLimit is the delivery limit of a quorum queue in RabbitMQ 4 if neither an
	// argument nor a policy sets one.
	defaultLimit = 20
)

// kind returns the kind of an existing queue. It queries RabbitMQ once in each epoch.
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

// probeKind determines the type and the delivery limit of a queue. AMQP has no method for
// that. But RabbitMQ refuses to declare an existing queue with different arguments, and names
// one of them in its answer. The argument x-max-age is invalid for a quorum queue: because of
// it, RabbitMQ creates no queue if there is none; if the queue exists, RabbitMQ ignores it.
func (d declarer) probeKind(queue string) kind {
	answer := d.declareOther(queue, deadLettering(queue))
	if arg, _ := refusedArgument(answer); strings.HasPrefix(arg, "x-dead-letter-") {
		answer = d.declareOther(queue, amqp.Table{}) // a dead-letter queue
	}
	return kindFrom(answer)
}

// declareOther returns RabbitMQ's answer to the declaration of an existing queue with these arguments
// and those of probeKind.
func (d declarer) declareOther(queue string, args amqp.Table) error {
	ch, err := d.live.Channel() // RabbitMQ closes the channel
	if err != nil {
		return err
	}
	defer ch.Close()
	args["x-queue-type"] = string(Quorum)
	args["x-delivery-limit"] = noLimit
	args["x-max-age"] = "none"
	_, err = ch.QueueDeclare(queue, true, false, false, false, args)
	return err
}

// kindFrom interprets RabbitMQ's answer to the declaration by probeKind. It returns the zero
// kind, whose queue type is unknown, for any answer that it does not expect.
func kindFrom(answer error) kind {
	if answer == nil {
		return kind{queueType: Quorum, limit: noLimit}
	}
	switch arg, current := refusedArgument(answer); arg {
	case "x-queue-type":
		return kind{queueType: cmp.Or(QueueType(current), Classic)}
	case "x-delivery-limit":
		limit, _ := strconv.Atoi(current)
		return kind{queueType: Quorum, limit: limit}
	}
	return kind{}
}

// refusedArgument returns the argument that RabbitMQ names when it refuses to declare an existing queue
// with different arguments, and the value that the queue has, or "" if it has none. arg is "" for
// other answers.
func refusedArgument(answer error) (arg, current string) {
	reason, _ := refusedArguments(answer)
	m := inequivalent.FindStringSubmatch(reason)
	if m == nil {
		return "", ""
	}
	return m[1], m[2]
}

// refusedArguments returns the text of RabbitMQ's answer if that has the reply code with which
// RabbitMQ refuses to declare an existing queue with different arguments. The code has other
// causes too: inequivalent must match the text.
func refusedArguments(answer error) (reason string, ok bool) {
	var e *amqp.Error
	if !errors.As(answer, &e) || e.Code != amqp.PreconditionFailed {
		return "", false
	}
	return e.Reason, true
}

// inequivalent matches a text returned by refusedArguments; its groups are the argument, the
// queue's value, which is empty if the queue has no such argument, and the type of the value.
var inequivalent = regexp.MustCompile(`^PRECONDITION_FAILED - inequivalent arg '([^']*)' .* but current is (?:none|(?:the value )?'([^']*)'(?: of type '([^']*)')?)`)

// reportLimit logs that RabbitMQ drops messages of a queue after too many deliveries. It logs
// each limit once: in a virtual host with quorum as the default type, all queues have the
// same limit.
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
	if k.limit < minLimit {
		log.Warn("the queue is a quorum queue with a low delivery limit: RabbitMQ removes messages that were delivered more often than that and not acknowledged; a policy can not raise this limit, which is an argument of the queue")
		return
	}
	log.Info("the queue is a quorum queue: unless a policy says otherwise, RabbitMQ removes a message that was delivered more often than its delivery limit; messages are replaced by copies before that")
}

// firstWithLimit records that a queue has this delivery limit, and reports whether it is the
// first one.
func (b *Broker) firstWithLimit(limit int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	known := b.loggedLimits[limit]
	b.loggedLimits[limit] = true
	return !known
}
