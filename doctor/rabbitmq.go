package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"peerlink/broker"
	"peerlink/broker/rabbitmq"
	"peerlink/link"
	"peerlink/node"
)

// RabbitMQ examines the broker RabbitMQ. It declares objects passively only.
type RabbitMQ struct {
	URL              string // as for [rabbitmq.Open]
	Pattern          link.QueuePattern
	DeadLetterSuffix string
	// Management is the URL of the management plugin; empty means its usual port on the same host.
	Management string
	Timeout    time.Duration // to connect

	mu         sync.Mutex // guards what follows: several peers are examined at once
	inspector  *rabbitmq.Inspector
	management *rabbitmq.Management // nil if it can not be asked
}

// defaultTimeout is the default of [RabbitMQ].Timeout.
const defaultTimeout = 10 * time.Second

func (b *RabbitMQ) examine(ctx context.Context, e *examination) {
	const name = "broker"
	timeout := b.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	inspector, err := rabbitmq.Inspect(ctx, b.URL, timeout)
	switch {
	case err != nil && rabbitmq.IsRefusedLogin(err):
		e.fail(name, "RabbitMQ", err.Error(), "see that the user, the password and the virtual host in the URL (--broker) are right, and that the user may use the virtual host: rabbitmqctl list_permissions")
		return
	case err != nil:
		e.fail(name, "RabbitMQ", err.Error(), "see that RabbitMQ runs (rabbitmq-diagnostics check_running), and that the host and the port in the URL (--broker) are right")
		return
	}
	b.inspector = inspector
	detail := fmt.Sprintf("RabbitMQ %s at %s", inspector.Version, inspector.Address)
	if rabbitmq.IsSupported(inspector.Version) {
		e.pass(name, "RabbitMQ", detail)
	} else {
		e.warn(name, "RabbitMQ", detail+": 3.10 or newer is needed", "upgrade RabbitMQ")
	}
	b.openManagement(ctx, e)
	b.checkInbox(e)
}

func (b *RabbitMQ) close() {
	if b.inspector != nil {
		_ = b.inspector.Close() // nothing was changed
	}
}

// openManagement finds out whether the management plugin can be asked.
func (b *RabbitMQ) openManagement(ctx context.Context, e *examination) {
	m, err := rabbitmq.OpenManagement(b.URL, b.Management)
	if err == nil {
		err = m.Check(ctx)
	}
	switch {
	case err == nil:
		b.management = m
	case b.Management != "":
		e.fail("policies", "RabbitMQ", err.Error(), "see that the URL (--management) is right, and that the user has the tag monitoring: rabbitmqctl set_user_tags USER monitoring")
	default:
		e.add("policies", "RabbitMQ", Skipped, "AMQP does not show policies and types of queues, and "+err.Error(), "")
	}
}

// checkInbox checks that the application has declared where messages of peers go.
func (b *RabbitMQ) checkInbox(e *examination) {
	inbox := e.dir.Identity().Type.Inbox()
	switch err := b.inspector.Exchange(inbox); {
	case errors.Is(err, rabbitmq.ErrNoExchange):
		e.fail("inbox", inbox, "there is no such exchange: no message of a peer can be stored", "start the node's application, which declares the exchange, and binds a queue to it")
	case err != nil:
		e.fail("inbox", inbox, err.Error(), permissionRemedy)
	default:
		e.pass("inbox", inbox, "the exchange is there")
	}
}

const permissionRemedy = "give the user the permissions that docs/queues.md lists: rabbitmqctl set_permissions"

func (b *RabbitMQ) examinePeer(ctx context.Context, e *examination, s *section, p *node.Peer) {
	if b.inspector == nil || p.SubCA == nil || p.Deactivated != "" {
		return
	}
	binding, err := bindingOf(e.dir, p, b.Pattern)
	if err != nil {
		s.fail("objects", "", err.Error(), peerRemedies["peer.chain"])
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.checkObjects(s, p, binding) {
		return
	}
	b.checkLimits(ctx, s, binding)
	b.checkMessages(e, s, p.Identity.ID, binding)
}

// checkObjects checks that the exchanges and queues for the peer exist.
func (b *RabbitMQ) checkObjects(s *section, p *node.Peer, q broker.PeerBinding) bool {
	const name = "objects"
	var missing []string
	for _, exchange := range []string{q.Exchange, rabbitmq.PeerExchange(q)} {
		if err := b.inspector.Exchange(exchange); errors.Is(err, rabbitmq.ErrNoExchange) {
			missing = append(missing, "exchange "+exchange)
		} else if err != nil {
			s.fail(name, exchange, err.Error(), permissionRemedy)
			return false
		}
	}
	for _, queue := range b.queuesOf(q) {
		if _, _, err := b.inspector.Queue(queue); errors.Is(err, broker.ErrNoQueue) {
			missing = append(missing, "queue "+queue)
		} else if err != nil {
			s.fail(name, queue, err.Error(), permissionRemedy)
			return false
		}
	}
	switch {
	case len(missing) == 0:
		s.pass(name, "", fmt.Sprintf("%s, %s, %s", q.Exchange, rabbitmq.PeerExchange(q), strings.Join(q.Queues, ", ")))
	case p.Active:
		s.fail(name, "", "missing in RabbitMQ: "+strings.Join(missing, ", "), "start the service again, which makes what is missing (it needs the plugin rabbitmq_random_exchange): peerlink serve")
	default:
		s.warn(name, "", "not made yet: "+strings.Join(missing, ", "), "start the service, which makes them (it needs the plugin rabbitmq_random_exchange): peerlink serve")
	}
	return len(missing) == 0
}

// queuesOf returns the names of the peer's queues, and of those with its dead letters.
func (b *RabbitMQ) queuesOf(q broker.PeerBinding) (names []string) {
	for _, queue := range q.Queues {
		names = append(names, queue, queue+b.DeadLetterSuffix)
	}
	return names
}

// checkLimits checks the arguments and the policies of the queues, which may make RabbitMQ drop messages.
func (b *RabbitMQ) checkLimits(ctx context.Context, s *section, q broker.PeerBinding) {
	const name = "limits"
	if b.management == nil {
		return
	}
	var types []string
	for _, queue := range b.queuesOf(q) {
		info, err := b.management.Queue(ctx, queue)
		if err != nil {
			s.warn(name, queue, err.Error(), "see the log of RabbitMQ")
			return
		}
		const remedy = "see docs/queues.md, about limits of queues: rabbitmqctl list_policies"
		switch risk := info.Risk(); {
		case risk == "":
		case slices.Contains(q.Queues, queue):
			s.fail(name, queue, risk, remedy)
		default: // messages that can not be sent
			s.warn(name, queue, risk, remedy)
		}
		if !slices.Contains(types, info.Type) {
			types = append(types, info.Type)
		}
	}
	if !slices.ContainsFunc(s.checks, func(c Check) bool { return c.Name == name }) {
		s.pass(name, "", "no limits; type of the queues: "+strings.Join(types, ", "))
	}
}

// checkMessages checks that no messages for the peer are stuck. RabbitMQ does not say how old they are.
func (b *RabbitMQ) checkMessages(e *examination, s *section, peer string, q broker.PeerBinding) {
	var state queueState
	for _, queue := range q.Queues {
		waiting, _, err := b.inspector.Queue(queue)
		aside, _, asideErr := b.inspector.Queue(queue + b.DeadLetterSuffix)
		if err == nil && asideErr == nil {
			state.waiting += int64(waiting)
			state.setAside += int64(aside)
		}
	}
	e.reportMessages(s, peer, state)
}
