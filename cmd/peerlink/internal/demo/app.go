package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"peerlink/internal/wait"
	"peerlink/local"
	"peerlink/node/nodetype"
	"peerlink/smp"
)

// app is the common part of the demo's applications: it consumes messages from its node's
// inbox, answers them, and acknowledges a message only when the broker has confirmed all
// answers to it. So an answer may be repeated, but never lost.
type app struct {
	node       *demoNode
	deliveries *deliveries
	handle     func(m *message) []*message // returns the answers to a new message

	mu      sync.Mutex
	sub     *local.ClientSubscription
	outbox  []*outgoing              // messages to be sent to the service
	news    wait.Signal              // notified when the outbox may have messages
	pending map[*outgoing]bool       // messages that the broker has not confirmed yet, including those in outbox
	handled map[messageKey]*incoming // the messages that have been handled
}

// outgoing is a message that the application has to send.
type outgoing struct {
	*message
	answers *incoming // the message that this one answers; nil if it is not an answer
}

// incoming is a message that the application has received.
type incoming struct {
	delivery    local.Message             // the latest delivery
	sub         *local.ClientSubscription // of the latest delivery
	unconfirmed int                       // number of answers that the broker has not confirmed yet
}

func newApp(n *demoNode, handle func(*message) []*message) *app {
	return &app{node: n, deliveries: n.deliveries, handle: handle, news: wait.NewSignal(),
		pending: make(map[*outgoing]bool), handled: make(map[messageKey]*incoming)}
}

// run runs the application until ctx is done. When the service is down, run waits until the
// service is up again, and then sends all unconfirmed messages again.
func (a *app) run(ctx context.Context) error {
	for ctx.Err() == nil {
		client, err := a.connect(ctx)
		if err != nil {
			return err
		}
		sendCtx, stopSending := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() { a.sendOutbox(sendCtx, client) })
		err = a.receive(ctx)
		stopSending()
		client.Close()
		wg.Wait()
		if err == nil {
			err = a.node.checkAlive()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// prefetch is the maximum number of unacknowledged messages of an application.
const prefetch = 1000

// connect waits for the service's local door and for its queues to all peers, without which it would
// set messages aside, subscribes to the inbox, and puts the unconfirmed messages into the outbox.
func (a *app) connect(ctx context.Context) (*local.Client, error) {
	inbox := "/queue/" + a.node.kind.Inbox()
	deadline := time.Now().Add(patience)
	for {
		client, err := a.dial(ctx)
		if err == nil {
			var sub *local.ClientSubscription
			if sub, err = client.Subscribe(ctx, inbox, prefetch, local.AckIndividual); err == nil {
				a.mu.Lock()
				defer a.mu.Unlock()
				a.sub = sub
				a.outbox = slices.Collect(maps.Keys(a.pending))
				a.news.Notify()
				return client, nil
			}
			client.Close()
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("the service takes no messages: %w\n%s", err, tailOf(a.node.log))
		}
		if err := wait.Sleep(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// dial connects to the service's local door once all peers are active.
func (a *app) dial(ctx context.Context) (*local.Client, error) {
	if err := a.node.checkPeersActive(); err != nil {
		return nil, err
	}
	return local.Dial(ctx, a.node.state)
}

// receive processes messages until the connection ends or ctx is done, neither of which is an
// error.
func (a *app) receive(ctx context.Context) error {
	for {
		d, err := a.sub.Next(ctx)
		if err != nil {
			return nil
		}
		m, err := parse(d.Body)
		if err != nil {
			return err
		}
		a.deliveries.delivered(m.key(a.peerName(m), a.node.name()))
		a.process(m, d)
	}
}

// process handles an incoming message and posts its answers. A repeated message is not handled
// again.
func (a *app) process(m *message, d local.Message) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := m.key(a.peerName(m), a.node.name())
	in := a.handled[key]
	if in == nil {
		in = new(incoming)
		a.handled[key] = in
		answers := a.handle(m)
		in.unconfirmed = len(answers)
		for _, answer := range answers {
			a.post(&outgoing{answer, in})
		}
	}
	in.delivery, in.sub = d, a.sub
	if in.unconfirmed == 0 {
		a.sub.Ack(d)
	}
}

// post puts a message into the outbox. The caller must hold the lock.
func (a *app) post(o *outgoing) {
	a.pending[o] = true
	a.outbox = append(a.outbox, o)
	a.news.Notify()
}

// sendOutbox sends the messages in the outbox to the service's local door, until ctx is done or
// the connection has ended.
func (a *app) sendOutbox(ctx context.Context, client *local.Client) {
	for {
		a.mu.Lock()
		batch := a.outbox
		a.outbox = nil
		a.mu.Unlock()
		for _, o := range batch {
			if err := a.send(ctx, client, o); err != nil {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-a.news:
		}
	}
}

// send sends a message to the service's local door.
func (a *app) send(ctx context.Context, client *local.Client, o *outgoing) error {
	body, err := json.Marshal(o.message)
	if err != nil {
		return err
	}
	peer := nodetype.AccountingAuthority
	if a.node.kind == peer {
		peer = o.agent()
	}
	key := smp.OutgoingRoutingKey(a.node.kind, peer, o.DebtorID, o.CreditorID)
	return client.Send(ctx, a.node.kind.Outbox(peer), key, o.Type, body, func(err error) {
		if err == nil {
			a.confirmed(o)
		} // otherwise the message is sent again on the next connection
	})
}

// confirmed records that the broker has confirmed a message. If the message was the last
// unconfirmed answer, confirmed acknowledges the answered message.
func (a *app) confirmed(o *outgoing) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.pending[o] {
		return
	}
	delete(a.pending, o)
	a.deliveries.sent(o.key(a.node.name(), a.peerName(o.message)))
	if in := o.answers; in != nil {
		if in.unconfirmed--; in.unconfirmed == 0 && in.sub == a.sub {
			in.sub.Ack(in.delivery)
		}
	}
}

// idle reports whether the broker has confirmed all messages of the application.
func (a *app) idle() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.pending) == 0
}

// peerName returns the name of the node on the other side of m's link.
func (a *app) peerName(m *message) string {
	if a.node.kind == nodetype.AccountingAuthority {
		return m.agent().Short()
	}
	return nodetype.AccountingAuthority.Short()
}
