package rabbitmq

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A queue may lose messages because of its arguments, which can be found out with AMQP, or
// because of a policy, which only the management plugin shows (see watchPolicies). Without the
// plugin, losses by a policy are detected only for dead-letter queues, by missing messages (see
// lengthCheck).

// risk is why a queue may lose messages.
type risk struct {
	arguments string // effect of its arguments; "" if they are harmless
	policy    string // effect of its policies; "" if they are harmless or not known
	missing   string // says that messages are missing; "" if none is known to be
}

func (r risk) String() string {
	return joinRisks(r.arguments, r.policy, r.missing)
}

// isNew reports whether r has a reason that before does not have.
func (r risk) isNew(before risk) bool {
	return r.arguments != "" && r.arguments != before.arguments || r.policy != "" && r.policy != before.policy || r.missing != "" && r.missing != before.missing
}

// joinRisks joins the texts that are not empty.
func joinRisks(texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(s string) bool { return s == "" }), "; ")
}

// Warnings returns a text for each queue that loses messages, or may lose some, with the
// reason, sorted by queue.
func (b *Broker) Warnings() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []string
	for _, queue := range slices.Sorted(maps.Keys(b.risks)) {
		list = append(list, fmt.Sprintf("queue %s: %v", queue, b.risks[queue]))
	}
	return list
}

// setRisk changes the risk of a queue, and logs a reason that is new.
func (b *Broker) setRisk(queue string, change func(*risk)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.risks[queue]
	r := before
	change(&r)
	if r == (risk{}) {
		delete(b.risks, queue)
		return
	}
	b.risks[queue] = r
	if r.isNew(before) {
		b.log.Warn("RabbitMQ can drop or move messages of a queue, see docs/queues.md", "queue", queue, "reason", r.String())
	}
}

// examineArguments sets the risk of a queue that is due to its arguments. It queries RabbitMQ once
// in each epoch (see currentEpoch). usual are the arguments that the queue probably has.
func (d declarer) examineArguments(queue string, usual amqp.Table) {
	b := d.live.broker
	epoch := b.health.currentEpoch()
	b.mu.Lock()
	examined := b.examinedIn[queue] // 0 if it was not: epochs count from 1
	b.mu.Unlock()
	if examined == epoch {
		return
	}
	text := riskOf(d.arguments(queue, usual))
	b.setRisk(queue, func(r *risk) { r.arguments = text })
	b.mu.Lock()
	defer b.mu.Unlock()
	b.examinedIn[queue] = epoch
}

// usualArguments returns the arguments that a peer's queue of this kind has if it was
// declared by this package or by the reference.
func (k kind) usualArguments(queue string) amqp.Table {
	args := deadLettering(queue)
	if k.queueType == Quorum {
		args["x-queue-type"] = string(Quorum)
		if k.limit != 0 {
			args["x-delivery-limit"] = k.limit
		}
	}
	return args
}

// maxArguments bounds the number of arguments of a queue that are queried. RabbitMQ
// compares about as many.
const maxArguments = 16

// arguments returns those arguments of an existing queue that RabbitMQ compares when the queue
// is declared again: RabbitMQ refuses different arguments, and its answer has the queue's
// value of one of them. (If the queue did not exist, it would be created.) The first declaration
// has the arguments usual; if the queue has most of them, few further declarations are needed.
func (d declarer) arguments(queue string, usual amqp.Table) amqp.Table {
	args := make(amqp.Table)
	maps.Copy(args, usual)
	asked := make(map[string]bool)
	for range maxArguments {
		ch, err := d.live.Channel() // RabbitMQ closes the channel
		if err != nil {
			return args
		}
		_, err = ch.QueueDeclare(queue, true, false, false, false, args)
		ch.Close()
		name, value, ok := inequivalence(err)
		if !ok || asked[name] {
			return args
		}
		asked[name] = true
		if value == nil {
			delete(args, name)
		} else {
			args[name] = value
		}
	}
	return args
}

// inequivalence returns the argument that RabbitMQ names in its answer to a declaration with
// different arguments, and the queue's value, which is nil if the queue does not have the
// argument. ok is false for any other answer.
func inequivalence(answer error) (name string, value any, ok bool) {
	reason, ok := refusedArguments(answer)
	if !ok {
		return "", nil, false
	}
	m := inequivalent.FindStringSubmatch(reason)
	if m == nil {
		return "", nil, false
	}
	name, text, amqpType := m[1], m[2], m[3]
	switch {
	case strings.HasSuffix(reason, " but current is none"):
		return name, nil, true
	case amqpType == "bool":
		return name, text == "true", true
	case amqpType == "longstr":
		return name, text, true
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return name, n, true
	}
	return name, text, true
}

// riskOf returns how a queue with these arguments may lose messages; "" if it does not.
func riskOf(args amqp.Table) string {
	return describeRisk(args, func(name string) string { return "it has the argument " + name })
}

// describeRisk is riskOf with another text for the name of an argument.
func describeRisk(args amqp.Table, called func(name string) string) string {
	var risks []string
	add := func(name, text string) {
		if v, exists := args[name]; exists {
			risks = append(risks, fmt.Sprintf("%s %v: %s", called(name), v, text))
		}
	}
	dropped := droppedOr(args)
	if args["x-queue-type"] == "stream" {
		risks = append(risks, "it is a stream, which drops old messages, and from which no message can be removed")
	}
	if overflow, _ := args["x-overflow"].(string); !strings.HasPrefix(overflow, "reject-publish") {
		text := "what is beyond that is " + dropped + ", the oldest first"
		add("x-max-length", text)
		add("x-max-length-bytes", text)
	}
	add("x-message-ttl", "messages are "+dropped+" after a number of milliseconds")
	add("x-expires", "RabbitMQ deletes the queue when it was not used for a number of milliseconds")
	return strings.Join(risks, "; ")
}

// droppedOr says what happens to a message that a queue with these arguments does not keep.
func droppedOr(args amqp.Table) string {
	if _, exists := args["x-dead-letter-exchange"]; exists {
		return "moved to where its dead-letter exchange leads"
	}
	return "dropped"
}
