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

// app is the part that every application of the demo has in common: it takes
// messages out of its node's inbox, answers them, and removes a message only
// when the broker holds all answers to it. So an answer can be repeated, but
// never be missing.
type app struct {
	node   *demoNode
	tally  *tally
	handle func(m *message) []*message // the answers to a message that is new

	mu      sync.Mutex
	sub     *local.ClientSubscription
	outbox  []*outgoing              // to be handed to the service
	news    wait.Signal              // rung when the outbox may have something
	pending map[*outgoing]bool       // not confirmed by the broker yet; the outbox is a part of it
	handled map[messageKey]*incoming // by what they are about
}

// outgoing is a message that the application has to send.
type outgoing struct {
	*message
	answers *incoming // nil if it is not an answer
}

// incoming is a message that the application has got.
type incoming struct {
	delivery   local.Message // the latest copy
	sub        *local.ClientSubscription
	unanswered int // answers that the broker does not hold yet
}

func newApp(n *demoNode, handle func(*message) []*message) *app {
	return &app{node: n, tally: n.tally, handle: handle, news: wait.NewSignal(),
		pending: make(map[*outgoing]bool), handled: make(map[messageKey]*incoming)}
}

// run works until ctx is done. When the service goes away, it waits for it to
// come back, and sends again what was not confirmed.
func (a *app) run(ctx context.Context) error {
	for ctx.Err() == nil {
		client, err := a.connect(ctx)
		if err != nil {
			return err
		}
		sendCtx, stopSending := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() { a.deliver(sendCtx, client) })
		err = a.receive(ctx)
		stopSending()
		client.Close()
		wg.Wait()
		if err == nil {
			err = a.node.alive()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// prefetch is how many messages an application works on at once.
const prefetch = 1000

// connect waits for the service's door, subscribes to the inbox, and sends
// what is waiting.
func (a *app) connect(ctx context.Context) (*local.Client, error) {
	inbox := "/queue/" + a.node.kind.Inbox()
	deadline := time.Now().Add(patience)
	for {
		client, err := local.Dial(ctx, a.node.state)
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
			return nil, fmt.Errorf("the door of the service does not open: %w\n%s", err, tailOf(a.node.log))
		}
		if err := wait.Sleep(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// receive takes messages until the connection ends, which is no error.
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
		a.tally.delivered(m.key(a.peerName(m), a.node.name()))
		a.take(m, d)
	}
}

// take handles a message that has come in, once, and answers it.
func (a *app) take(m *message, d local.Message) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := m.key(a.peerName(m), a.node.name())
	in := a.handled[key]
	if in == nil {
		in = new(incoming)
		a.handled[key] = in
		answers := a.handle(m)
		in.unanswered = len(answers)
		for _, answer := range answers {
			a.post(&outgoing{answer, in})
		}
	}
	in.delivery, in.sub = d, a.sub
	if in.unanswered == 0 {
		a.sub.Ack(d)
	}
}

// post puts a message into the outbox. The caller holds the lock.
func (a *app) post(o *outgoing) {
	a.pending[o] = true
	a.outbox = append(a.outbox, o)
	a.news.Notify()
}

// deliver hands what is in the outbox to the service's door, until ctx is done
// or the connection has ended.
func (a *app) deliver(ctx context.Context, client *local.Client) {
	for {
		a.mu.Lock()
		batch := a.outbox
		a.outbox = nil
		a.mu.Unlock()
		for _, o := range batch {
			if err := a.hand(ctx, client, o); err != nil {
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

func (a *app) hand(ctx context.Context, client *local.Client, o *outgoing) error {
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
		} // else it is sent again on the next connection
	})
}

func (a *app) confirmed(o *outgoing) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.pending[o] {
		return
	}
	delete(a.pending, o)
	a.tally.sent(o.key(a.node.name(), a.peerName(o.message)))
	if in := o.answers; in != nil {
		if in.unanswered--; in.unanswered == 0 && in.sub == a.sub {
			in.sub.Ack(in.delivery)
		}
	}
}

// idle is called when the application has nothing more to send.
func (a *app) idle() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.pending) == 0
}

// peerName names the node on the other side of the link that m goes over.
func (a *app) peerName(m *message) string {
	if a.node.kind == nodetype.AccountingAuthority {
		return m.agent().Short()
	}
	return nodetype.AccountingAuthority.Short()
}
