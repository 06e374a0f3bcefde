package link

import (
	"errors"
	"sync"
	"time"

	"peerlink/broker"
	"peerlink/internal/topic"
	"peerlink/node"
	"peerlink/node/nodetype"
	"peerlink/smp"
)

// Outbox checks the messages of the node's applications before they are stored, as the
// sender of the peer's queue will: a message that can never be sent is refused while its
// author is there. It also answers messages for which there is no peer. A [Service] keeps it up to date with the node's directory
// ([Config.Outbox]).
type Outbox struct {
	owner        nodetype.Type
	ownCreditors smp.Subnet // of a creditors agent
	ownDebtors   smp.Subnet // of an accounting authority
	mu           sync.Mutex
	peers        map[string]outboxPeer // by ID
	routes       topic.Router[string]  // of peer IDs, built from peers when needed; nil if outdated
}

// outboxPeer is a peer to which messages are routed.
type outboxPeer struct {
	binding broker.PeerBinding
	view    smp.View
}

// rootCreditors is the range of creditors between an authority and a debtors agent: the ID 0.
var rootCreditors = smp.Subnet{Value: 0, Mask: ^uint64(0)}

// NewOutbox returns an Outbox for a node. Until a [Service] has found the node's peers, it only
// checks what does not depend on the peer.
func NewOutbox(d *node.Dir) (*Outbox, error) {
	o := &Outbox{owner: d.Identity().Type, peers: make(map[string]outboxPeer)}
	var err error
	switch o.owner {
	case nodetype.CreditorsAgent:
		var digits string
		if digits, err = d.CreditorsSubnet(); err == nil {
			o.ownCreditors, err = smp.ParseSubnet(digits)
		}
	case nodetype.AccountingAuthority:
		o.ownDebtors, err = smp.ParseSubnet(d.Identity().ID)
	}
	if err != nil {
		return nil, err
	}
	return o, nil
}

// set adds a peer, or replaces what is known of it. It does nothing if o is nil.
func (o *Outbox) set(b broker.PeerBinding, view smp.View) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	old, known := o.peers[b.PeerID]
	if !known || !equalBinding(old.binding, b) {
		o.routes = nil
	}
	o.peers[b.PeerID] = outboxPeer{b, view}
}

// remove removes a peer to which no more messages are routed. It does nothing if o is nil.
func (o *Outbox) remove(peerID string) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.peers, peerID)
	o.routes = nil
}

// Check returns an error if a message that an application sends to an exchange, with a routing
// key, cannot be sent to the peers that it is routed to. If there are none, it checks what does
// not depend on the peer.
func (o *Outbox) Check(exchange, routingKey string, m *broker.Outgoing) error {
	for _, view := range o.views(exchange, routingKey) {
		_, err := view.Outgoing(m.Type, m.ContentType, m.Body)
		if err != nil && !errors.Is(err, smp.ErrView) { // a wrong view is not the application's fault: the message waits
			return err
		}
	}
	return nil
}

// Answer returns the message for the node's inbox that answers a message for which there is no
// peer, or nil if there is no answer. As with the reference, a creditors agent's configuration of an
// account with a debtor to which there is no link is rejected.
func (o *Outbox) Answer(m *broker.Outgoing) *broker.Incoming {
	if o.owner != nodetype.CreditorsAgent || m.Type != smp.ConfigureAccount {
		return nil
	}
	answer, err := answerTo(o.anyPeer(""), m, time.Now())
	if err != nil || answer == nil {
		return nil
	}
	return incoming(o.owner.Inbox(), answer)
}

// views returns the views of the peers that a message is routed to, or, if there are none, the
// view of any peer.
func (o *Outbox) views(exchange, routingKey string) []smp.View {
	o.mu.Lock()
	if o.routes == nil {
		o.buildRoutes()
	}
	var views []smp.View
	for _, id := range o.routes.Route(exchange, routingKey) {
		views = append(views, o.peers[id].view)
	}
	o.mu.Unlock()
	if len(views) == 0 {
		views = append(views, o.anyPeer(exchange))
	}
	return views
}

// buildRoutes builds o.routes. The caller holds o.mu.
func (o *Outbox) buildRoutes() {
	o.routes = make(topic.Router[string])
	for id, p := range o.peers {
		o.routes.Bind(topic.Binding[string]{Exchange: p.binding.Exchange, Key: p.binding.BindingKey, Fanout: p.binding.Fanout, Target: id})
	}
}

// anyPeer returns a view that contains the IDs in messages to all peers behind an exchange, and
// translates none.
func (o *Outbox) anyPeer(exchange string) smp.View {
	v := smp.View{Owner: o.owner, Peer: nodetype.AccountingAuthority, PeerDebtors: o.ownDebtors}
	switch o.owner {
	case nodetype.CreditorsAgent:
		v.OwnerCreditors, v.PeerCreditors = o.ownCreditors, o.ownCreditors
	case nodetype.DebtorsAgent:
		v.PeerCreditors = rootCreditors
	default:
		if v.Peer = nodetype.CreditorsAgent; exchange == o.owner.Outbox(nodetype.DebtorsAgent) {
			v.Peer, v.PeerCreditors = nodetype.DebtorsAgent, rootCreditors
		}
	}
	return v
}
