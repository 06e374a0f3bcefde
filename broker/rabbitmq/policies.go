package rabbitmq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/internal/wait"
)

const (
	// policyInterval is the time between two rounds in which the policies of all queues are
	// read from the management plugin.
	policyInterval = time.Minute
	// policyRetry is that time while the plugin does not know the policies of a queue yet.
	policyRetry = 5 * time.Second
	// policyStep is the minimum time between the requests of all rounds but the first.
	policyStep = 100 * time.Millisecond
)

// errOtherRabbitMQ is returned if the management plugin knows none of the queues.
var errOtherRabbitMQ = errors.New("it knows none of the queues: does it belong to the RabbitMQ, and the virtual host, of the broker URL?")

// watchPolicies reads, from the management plugin, the policies of the queues of all declared
// peers, and sets the risks that are due to them, until the broker is closed. It sends one
// request at a time, on a connection of its own: neither a slow plugin nor many queues delay
// messages.
func (b *Broker) watchPolicies() {
	failure := ""
	for step := time.Duration(0); b.life.Err() == nil; step = policyStep {
		pause := policyInterval
		known, err := b.readPolicies(step)
		if !known {
			pause = policyRetry
		}
		switch {
		case b.life.Err() != nil:
			return
		case err == nil && failure != "":
			b.log.Info("the policies of queues can be read again")
			failure = ""
		case err != nil && err.Error() != failure:
			failure = err.Error()
			b.log.Warn("policies that may drop messages are not seen: the policies of queues can not be read", "err", err)
		}
		_ = wait.Sleep(b.life, pause)
	}
}

// readPolicies reads the policies of all queues once, with pauses of step in between. It
// returns the first error. known is false if the plugin does not know the policies of all
// queues yet.
func (b *Broker) readPolicies(step time.Duration) (known bool, err error) {
	queues := b.watchedQueues()
	b.forgetPolicies(queues)
	found := false
	known = true
	for _, queue := range queues {
		info, err := b.management.Queue(b.life, queue)
		if err != nil && !errors.Is(err, broker.ErrNoQueue) {
			return true, err
		}
		text := ""
		if err == nil {
			found = true
			known = known && info.LimitsKnown
			text = riskOfPolicy(info)
		}
		b.setRisk(queue, func(r *risk) { r.policy = text })
		if err := wait.Sleep(b.life, step); err != nil {
			return true, err
		}
	}
	if len(queues) > 0 && !found {
		return true, errOtherRabbitMQ
	}
	return known, nil
}

// watchedQueues returns the queues and dead-letter queues of all declared peers, sorted.
func (b *Broker) watchedQueues() (queues []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range b.declared {
		for _, queue := range d.binding.Queues {
			queues = append(append(queues, queue), b.deadLetterQueues(queue)...)
		}
	}
	slices.Sort(queues)
	return queues
}

// forgetPolicies removes the risks by policies of all other queues.
func (b *Broker) forgetPolicies(queues []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for queue, r := range b.risks {
		if _, watched := slices.BinarySearch(queues, queue); watched || r.policy == "" {
			continue
		}
		if r.policy = ""; r == (risk{}) {
			delete(b.risks, queue)
		} else {
			b.risks[queue] = r
		}
	}
}

// PolicyWarning returns how a queue, or one of its dead-letter queues, may lose messages
// because of the policies that apply to it; "" if they lose none. It reads the policies
// from the management plugin, and returns an error that wraps [ErrNoManagement] if that can
// not be asked, or [Options.Management] is empty, and another one if it knows none of these
// queues, one of which exists.
func (b *Broker) PolicyWarning(ctx context.Context, queue string) (string, error) {
	if b.management == nil {
		return "", ErrNoManagement
	}
	var warnings []string
	known := false
	for _, name := range append([]string{queue}, b.deadLetterQueues(queue)...) {
		info, err := b.management.Queue(ctx, name)
		if errors.Is(err, broker.ErrNoQueue) {
			continue
		}
		if err != nil {
			return "", err
		}
		known = true
		if text := riskOfPolicy(info); text != "" {
			warnings = append(warnings, fmt.Sprintf("queue %s: %s", name, text))
		}
	}
	if !known {
		return "", fmt.Errorf("the management plugin of RabbitMQ: %w (It does not know a queue for some seconds after it was made.)", errOtherRabbitMQ)
	}
	return strings.Join(warnings, "; "), nil
}

// riskOfPolicy returns how a queue may lose messages because of the policies that apply to
// it; "" if it loses none. Where a policy and an argument set the same limit, RabbitMQ uses
// the lower one; of other settings, the argument.
func riskOfPolicy(info *QueueInfo) string {
	effective := amqp.Table{}
	for name, value := range info.Limits {
		effective["x-"+name] = value
	}
	for _, name := range []string{"x-overflow", "x-dead-letter-exchange"} {
		if value, exists := info.Arguments[name]; exists {
			effective[name] = value
		}
	}
	text := describeRisk(effective, func(name string) string { return "a policy sets " + strings.TrimPrefix(name, "x-") })
	if limit, ok := effective["x-delivery-limit"].(json.Number); ok && info.Type == string(Quorum) {
		if n, err := limit.Int64(); err == nil && n >= 0 && n < minLimit {
			text = joinRisks(text, fmt.Sprintf("a policy sets delivery-limit %d: messages that were delivered more often than that are %s, and peerlink replaces them by copies too late", n, droppedOr(effective)))
		}
	}
	if text != "" && info.Policy != "" {
		text += fmt.Sprintf(" (policy %q)", info.Policy)
	}
	return text
}
