package rabbitmq

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A dead-letter queue may lose messages: by arguments with which somebody has declared it,
// which AMQP shows, or by a policy, which it does not. The latter is noticed only by
// messages that are missing.

// risk is why a dead-letter queue may lose messages.
type risk struct {
	arguments string // what they say; "" if nothing of interest
	missing   string // that messages are missing, or ""
}

func (r risk) String() string {
	if r.arguments != "" && r.missing != "" {
		return r.arguments + "; " + r.missing
	}
	return r.arguments + r.missing
}

// Warnings says which queues of messages set aside lose some, or will, and why, in order.
func (b *Broker) Warnings() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []string
	for _, queue := range slices.Sorted(maps.Keys(b.risks)) {
		list = append(list, fmt.Sprintf("queue %s: %v", queue, b.risks[queue]))
	}
	return list
}

// setRisk changes what is known of a dead-letter queue. It is logged when there is more.
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
	if r != before {
		b.log.Warn("messages that are set aside can be lost, see docs/queues.md", "queue", queue, "reason", r.String())
	}
}

// noteRisk looks at the arguments of a dead-letter queue. RabbitMQ is asked once in an
// era.
func (d declarer) noteRisk(queue string) {
	b := d.live.broker
	era := b.health.currentEra()
	b.mu.Lock()
	k, known := b.kinds[queue]
	b.mu.Unlock()
	if known && k.era == era {
		return
	}
	text := riskOf(d.arguments(queue))
	b.setRisk(queue, func(r *risk) { r.arguments = text })
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kinds[queue] = kind{era: era}
}

// maxArguments is how many arguments of a queue are asked for. RabbitMQ compares hardly
// more.
const maxArguments = 12

// arguments returns the arguments of a queue that exists, so far as RabbitMQ compares
// them: it refuses to declare a queue with others than it has, and says of one which it is.
func (d declarer) arguments(queue string) amqp.Table {
	args := make(amqp.Table)
	for range maxArguments {
		ch, err := d.live.Channel() // RabbitMQ closes it
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
// and the value that the queue has; nil if that is none, or can not be read.
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

// riskOf says how a queue with these arguments loses messages; "" if it does not.
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

// tallyPause is the least time between two counts of a dead-letter queue.
const tallyPause = time.Second

// returnCounts compares how many messages a queue has with how many were put into it.
type returnCounts struct {
	at    time.Time // of the last count; zero before the first
	found int       // at that time
	since int       // put into the queue since
}

// count counts one message that was put into a queue, and the queue, now and then.
// Messages that are missing may have been taken out; the operator knows that.
func (t *returnCounts) count(ctx context.Context, b *Broker, queue string) {
	t.since++
	if time.Since(t.at) < b.tallyPause {
		return
	}
	found := 0
	err := b.onDeclaring(ctx, func(d declarer) (err error) {
		n, _, err := d.count(queue)
		found = n
		return err
	})
	if err != nil {
		return // the next one counts
	}
	if found < t.found+t.since { // t.found is 0 before the first count
		b.setRisk(queue, func(r *risk) {
			r.missing = "it has fewer messages than were put into it: unless somebody has taken some out, a policy of RabbitMQ drops them"
		})
	}
	t.at, t.found, t.since = time.Now(), found, 0
}
