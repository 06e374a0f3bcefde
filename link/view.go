package link

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"peerlink/broker"
	"peerlink/node"
	"peerlink/node/nodetype"
	"peerlink/smp"
)

// View returns the ranges of IDs in which a node and one of its peers exchange messages
// (section "Subnets" of the messages specification). It returns an error if the peer is not
// registered, or a subnet is invalid.
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

// BindingOf returns the broker objects that carry the messages for a peer (section "RabbitMQ
// objects of the reference" of the messages specification), with as many queues as the
// node's directory specifies.
func BindingOf(d *node.Dir, p *node.Peer, v smp.View, pattern QueuePattern) (broker.PeerBinding, error) {
	owner := d.Identity().Type
	q := broker.PeerBinding{
		PeerID:   p.Identity.ID,
		Prefix:   strings.ToLower(owner.Short()),
		Exchange: owner.Outbox(p.Identity.Type),
		Fanout:   owner == nodetype.DebtorsAgent,
	}
	// Creditors agents are distinguished by their creditors, all other nodes by their
	// debtors.
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
	q.Queues = pattern.Names(p.Identity.ID, p.Queues)
	return q, nil
}

// QueuePattern is a pattern of the names of the queues that lead to a peer. {node-id}
// stands for the peer's node ID, and {n} for the number of the queue, counted from 0.
// Without {n}, the names of a peer's further queues end in .1, .2 and so on.
type QueuePattern string

// DefaultQueuePattern gives names such as peer.1234abcd.0.
const DefaultQueuePattern QueuePattern = "peer.{node-id}.{n}"

// errQueuePattern is returned for a pattern that [ParseQueuePattern] does not accept.
var errQueuePattern = errors.New("pattern for the names of queues is not usable")

const (
	nodeIDField = "{node-id}"
	numberField = "{n}"
	// maxPattern is the maximum length of a pattern in bytes. The 255 bytes of a name in
	// AMQP are then sufficient for the ID and the number, too.
	maxPattern = 200
)

// ParseQueuePattern checks a pattern: it must contain {node-id} once, and {n} at most
// once, separated by a character that is no hexadecimal digit, so that no two queues
// have the same name. If the pattern does not meet these conditions, ParseQueuePattern
// returns an error.
func ParseQueuePattern(s string) (QueuePattern, error) {
	bad := func(reason string) (QueuePattern, error) {
		return "", fmt.Errorf("%w: %.*q %s; expected something like %s", errQueuePattern, maxPattern, s, reason, DefaultQueuePattern)
	}
	id, n := strings.Index(s, nodeIDField), strings.Index(s, numberField)
	if strings.Count(s, nodeIDField) != 1 || strings.Count(s, numberField) > 1 {
		return bad("does not hold {node-id} once, and {n} at most once")
	}
	if strings.ContainsAny(strings.NewReplacer(nodeIDField, "", numberField, "").Replace(s), "{}") {
		return bad("holds other fields in braces")
	}
	if n >= 0 {
		between := s[min(id+len(nodeIDField), n+len(numberField)):max(id, n)]
		if strings.Trim(between, "0123456789abcdef") == "" {
			return bad("does not separate the two fields")
		}
	}
	if len(s) > maxPattern {
		return bad(fmt.Sprintf("is longer than %d bytes", maxPattern))
	}
	return QueuePattern(s), nil
}

// Name returns the name of a peer's queue with the number n, counted from 0.
func (p QueuePattern) Name(nodeID string, n int) string {
	name := strings.NewReplacer(nodeIDField, nodeID, numberField, strconv.Itoa(n)).Replace(string(p))
	if n > 0 && !strings.Contains(string(p), numberField) {
		name += "." + strconv.Itoa(n)
	}
	return name
}

// Names returns the names of the first count queues of a peer.
func (p QueuePattern) Names(nodeID string, count int) (names []string) {
	for n := range count {
		names = append(names, p.Name(nodeID, n))
	}
	return names
}
