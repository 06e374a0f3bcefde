package rabbitmq

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A dead-letter queue may lose messages because of arguments, which AMQP shows, or because
// of a policy, which AMQP does not show. The latter is detected only by missing messages.

// risk is why a dead-letter queue may lose messages.
type risk struct {
	arguments string // effect of its arguments; "" if they are harmless
	missing   string // that messages are missing, or ""
}

func (r risk) String() string {
	if r.arguments != "" && r.missing != "" {
		return r.arguments + "; " + r.missing
	}
	return r.arguments + r.missing
}

// Warnings returns which dead-letter queues lose messages, or may, and why, sorted.
func (b *Broker) Warnings() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []string
	for _, queue := range slices.Sorted(maps.Keys(b.risks)) {
		list = append(list, fmt.Sprintf("queue %s: %v", queue, b.risks[queue]))
	}
	return list
}

// setRisk changes the risk of a dead-letter queue, and logs it if there is a new one.
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
	if r.arguments != "" && r.arguments != before.arguments || r.missing != "" && r.missing != before.missing {
		b.log.Warn("messages that are set aside can be lost, see docs/queues.md", "queue", queue, "reason", r.String())
	}
}

// noteRisk checks the arguments of a dead-letter queue. It asks RabbitMQ once in each epoch.
func (d declarer) noteRisk(queue string) {
	b := d.live.broker
	epoch := b.health.currentEpoch()
	b.mu.Lock()
	k, known := b.kinds[queue]
	b.mu.Unlock()
	if known && k.epoch == epoch {
		return
	}
	text := riskOf(d.arguments(queue))
	b.setRisk(queue, func(r *risk) { r.arguments = text })
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kinds[queue] = kind{epoch: epoch}
}

// maxArguments bounds the number of arguments of a queue that are asked for. RabbitMQ
// compares hardly more.
const maxArguments = 12

// arguments returns those arguments of an existing queue that RabbitMQ compares: it
// refuses to declare the queue with different arguments, and its answer has the value of
// one of them.
func (d declarer) arguments(queue string) amqp.Table {
	args := make(amqp.Table)
	for range maxArguments {
		ch, err := d.live.Channel() // RabbitMQ closes the channel
		if err != nil {
			return args
		}
		_, err = ch.QueueDeclare(queue, true, false, false, false, args)
		ch.Close()
		name, value, other := inequivalence(err)
		if !other || value == nil {
			return args
		}
		if _, again := args[name]; again {
			return args
		}
		args[name] = value
	}
	return args
}

// inequivalence returns the argument that RabbitMQ names in its answer to a declaration,
// and the queue's value of it; nil if there is none, or if it can not be parsed.
func inequivalence(answer error) (name string, value any, ok bool) {
	reason, ok := refusedArguments(answer)
	if !ok {
		return "", nil, false
	}
	m := inequivalent.FindStringSubmatch(reason)
	if m == nil {
		return "", nil, false
	}
	name, text := m[1], m[2]
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return name, n, true
	}
	if text == "" {
		return name, nil, true
	}
	return name, text, true
}

// riskOf returns how a queue with these arguments loses messages; "" if it does not.
func riskOf(args amqp.Table) string {
	var risks []string
	add := func(name, text string) {
		if v, there := args[name]; there {
			risks = append(risks, fmt.Sprintf("it has the argument %s %v: %s", name, v, text))
		}
	}
	if args["x-queue-type"] == "stream" {
		risks = append(risks, "it is a stream, which drops old messages, and out of which none can be taken")
	}
	if overflow, _ := args["x-overflow"].(string); !strings.HasPrefix(overflow, "reject-publish") {
		const text = "what is beyond that is dropped, the oldest first"
		add("x-max-length", text)
		add("x-max-length-bytes", text)
	}
	add("x-message-ttl", "messages are dropped after a number of milliseconds")
	add("x-expires", "RabbitMQ deletes the queue when it was not used for a number of milliseconds")
	return strings.Join(risks, "; ")
}
