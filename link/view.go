package link

import (
	"fmt"
	"strings"

	"peerlink/broker"
	"peerlink/node"
	"peerlink/node/nodetype"
	"peerlink/smp"
)

// View gives the ranges of IDs in which a node and one of its peers exchange
// messages (section "Subnets" of the messages specification). The peer must be
// registered.
func View(d *node.Dir, p *node.Peer) (smp.View, error) {
	v := smp.View{Owner: d.Identity().Type, Peer: p.Identity.Type}
	var ownCreditors, peerCreditors, peerDebtors string
	zero := strings.Repeat("0", 16)
	var err error
	switch {
	case v.Owner == nodetype.AccountingAuthority && v.Peer == nodetype.CreditorsAgent:
		peerCreditors, peerDebtors = p.Subnet, d.Identity().ID
	case v.Owner == nodetype.AccountingAuthority && v.Peer == nodetype.DebtorsAgent:
		peerCreditors, peerDebtors = zero, p.Subnet
	case v.Owner == nodetype.CreditorsAgent:
		if ownCreditors, err = d.CreditorsSubnet(); err != nil {
			return v, err
		}
		peerCreditors, peerDebtors = p.Subnet, p.Identity.ID
	default:
		if ownCreditors, peerCreditors = zero, zero; p.Subnet == "" {
			return v, fmt.Errorf("peer %s is not registered: no subnet has been agreed on", p.Identity.ID)
		}
		peerDebtors = p.Subnet
	}
	if p.Subnet == "" {
		return v, fmt.Errorf("peer %s is not registered: no subnet has been agreed on", p.Identity.ID)
	}
	for _, r := range []struct {
		dst  *smp.Subnet
		text string
	}{{&v.OwnerCreditors, ownCreditors}, {&v.PeerCreditors, peerCreditors}, {&v.PeerDebtors, peerDebtors}} {
		if *r.dst, err = smp.ParseSubnet(r.text); err != nil {
			return v, fmt.Errorf("peer %s: %w", p.Identity.ID, err)
		}
	}
	if err := v.Check(); err != nil {
		return v, fmt.Errorf("peer %s: %w", p.Identity.ID, err)
	}
	return v, nil
}

// PeerQueue names the broker objects that carry a peer's messages (section
// "RabbitMQ objects of the reference" of the messages specification), with as
// many queues as the node's directory says.
func PeerQueue(d *node.Dir, p *node.Peer, v smp.View, names QueuePattern) (broker.PeerQueue, error) {
	owner := d.Identity().Type
	q := broker.PeerQueue{
		PeerID:   p.Identity.ID,
		Prefix:   strings.ToLower(owner.Short()),
		Exchange: owner.Outbox(p.Identity.Type),
		Fanout:   owner == nodetype.DebtorsAgent,
	}
	// Creditors agents are told apart by the creditors they serve, all others
	// by the debtors.
	subnet := v.PeerDebtors
	if p.Identity.Type == nodetype.CreditorsAgent {
		subnet = v.PeerCreditors
	}
	if !q.Fanout {
		var err error
		if q.BindingKey, err = subnet.BindingKey(); err != nil {
			return q, fmt.Errorf("peer %s: %w", p.Identity.ID, err)
		}
	}
	for n := range p.Queues {
		q.Queues = append(q.Queues, names.Name(p.Identity.ID, n))
	}
	return q, nil
}
