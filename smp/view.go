package smp

import (
	"fmt"
	"strconv"
	"time"

	"peerlink/node/nodetype"
)

// View is a node's view of one of its peers: the types of the two nodes, and the ranges of
// IDs in their messages. (Section "Subnets".)
type View struct {
	// Owner is the type of the node that has this view, Peer the type of its peer.
	Owner, Peer nodetype.Type
	// OwnerCreditors is the range in which a creditors agent keeps its own creditors, from
	// its creditors-subnet.txt. It is ignored for other owners.
	OwnerCreditors Subnet
	// PeerCreditors is the range of creditors in messages between the two nodes. Between
	// an authority and a creditors agent it is the range that the authority has assigned
	// (in the file subnet.txt at the authority, masq-subnet.txt at the agent); between an
	// authority and a debtors agent it contains only the ID 0.
	PeerCreditors Subnet
	// PeerDebtors is the range of debtors in messages between the two nodes: an
	// authority's node ID, or the part of that range that was assigned to a debtors agent.
	PeerDebtors Subnet
}

// Check returns an error that wraps [ErrView] unless the view is consistent: the two types
// can be peers, each range is a prefix, a creditors agent's two ranges are equally wide,
// and the range of a debtors agent's creditors contains only the ID 0.
//
// Outgoing and Incoming check the view too, since an inconsistent view could move money to
// the wrong account. Call Check to get the error before there is a message.
func (v View) Check() error {
	if !v.Owner.CanPeer(v.Peer) {
		return fmt.Errorf("%w: %v and %v can not be peers, expected an accounting authority and an agent", ErrView, v.Owner, v.Peer)
	}
	if !v.PeerCreditors.wellFormed() {
		return fmt.Errorf("%w: the peer's creditors range %v is not a prefix of IDs", ErrView, v.PeerCreditors)
	}
	if !v.PeerDebtors.wellFormed() {
		return fmt.Errorf("%w: the peer's debtors range %v is not a prefix of IDs", ErrView, v.PeerDebtors)
	}
	switch {
	case v.Owner == nodetype.CreditorsAgent:
		if !v.OwnerCreditors.wellFormed() {
			return fmt.Errorf("%w: the node's own creditors range %v is not a prefix of IDs", ErrView, v.OwnerCreditors)
		}
		if v.OwnerCreditors.Mask != v.PeerCreditors.Mask {
			return fmt.Errorf("%w: the node's own creditors range %v and the peer's %v differ in length, so that IDs can not be translated",
				ErrView, v.OwnerCreditors, v.PeerCreditors)
		}
	case v.Owner == nodetype.DebtorsAgent || v.Peer == nodetype.DebtorsAgent:
		if v.PeerCreditors != exactly(rootCreditor) {
			return fmt.Errorf("%w: the creditors range between an authority and a debtors agent is %v, expected %v",
				ErrView, v.PeerCreditors, exactly(rootCreditor))
		}
	}
	return nil
}

// Outgoing validates a message of the node's application to the peer, translates it, and
// returns the body to send, at most [MaxBody] bytes of JSON. typ and contentType are the
// message's headers. Errors are an [Error], which is permanent, or [ErrView]. (Section
// "Outgoing".)
//
// Outgoing does not check whether the node may use the coordinator type and ID (beyond what the
// translation needs), nor whether the timestamp is in the future: the peer's Incoming does.
func (v View) Outgoing(typ, contentType string, body []byte) ([]byte, error) {
	if err := v.Check(); err != nil {
		return nil, err
	}
	var m message
	toAuthority := v.Owner != nodetype.AccountingAuthority
	if err := m.parseAndCheck(typ, contentType, body, toAuthority, MaxApplicationBody); err != nil {
		return nil, err
	}
	if v.Owner == nodetype.CreditorsAgent {
		const whose = "the node's own creditors"
		if err := m.requireID(creditorField, v.OwnerCreditors, errForeignID, whose); err != nil {
			return nil, err
		}
		m.translateID(creditorField, v.OwnerCreditors, v.PeerCreditors)
		if coordinator := m.coordinatorType(); m.schema.hasCoordinatorID() && (coordinator == direct || coordinator == agent) {
			if err := m.requireID(coordinatorIDField, v.OwnerCreditors, errForeignID, whose); err != nil {
				return nil, err
			}
			m.translateID(coordinatorIDField, v.OwnerCreditors, v.PeerCreditors)
		}
	}
	if err := v.requireAccount(&m); err != nil {
		return nil, err
	}
	out := m.body(min(len(body), MaxBody) + bodyGrowth)
	if err := checkLength(m.schema.name, out, MaxBody); err != nil {
		return nil, err
	}
	return out, nil
}

// Incoming validates a message of the peer, translates it, and returns the message for the
// node's application. typ and contentType are the message's headers, now is the time of
// arrival. Errors are an [Error], to be sent to the peer, or [ErrView]. (Section
// "Incoming".)
func (v View) Incoming(typ, contentType string, body []byte, now time.Time) (Received, error) {
	if err := v.Check(); err != nil {
		return Received{}, err
	}
	var m message
	toAuthority := v.Owner == nodetype.AccountingAuthority
	if err := m.parseAndCheck(typ, contentType, body, toAuthority, MaxBody); err != nil {
		return Received{}, err
	}
	if ahead := m.ahead(now); ahead > maxAhead.Microseconds() {
		return Received{}, &Error{
			kind: errFuture, Type: m.schema.name, Field: "ts",
			Detail: fmt.Sprintf("is %d seconds in the future, at most %.0f are allowed", ahead/1_000_000, maxAhead.Seconds()),
		}
	}
	if err := v.requireAccount(&m); err != nil {
		return Received{}, err
	}
	if err := v.requireCoordinator(&m); err != nil {
		return Received{}, err
	}
	if v.Owner == nodetype.CreditorsAgent {
		m.translateID(creditorField, v.PeerCreditors, v.OwnerCreditors)
		if m.schema.hasCoordinatorID() {
			m.translateID(coordinatorIDField, v.PeerCreditors, v.OwnerCreditors)
		}
	}
	headers := m.headers(v.Owner)
	return Received{
		Type:       m.schema.name,
		Body:       m.body(len(body) + bodyGrowth),
		RoutingKey: headers.routingKey(v.Owner),
		Headers:    headers,
	}, nil
}

// bodyGrowth is by how many bytes a body usually grows at most when it is written again,
// since translated IDs may have more digits. A buffer with this additional capacity need
// not be enlarged.
const bodyGrowth = 32

// parseAndCheck is the first step of Outgoing and Incoming: it parses a message and
// validates what does not depend on the view. in is the permitted direction, as in schema.
func (m *message) parseAndCheck(typ, contentType string, body []byte, in bool, limit int) error {
	s := schemaOf(typ)
	if s == nil {
		return unknownType(typ)
	}
	if s.in != in {
		way := "toward"
		if s.in {
			way = "away from"
		}
		return &Error{kind: errType, Type: s.name, Detail: "only messages " + way + " an accounting authority are allowed here"}
	}
	if contentType != ContentType {
		return &Error{kind: errContentType, Type: s.name, Detail: "content type is " + excerpt(contentType) + ", expected " + ContentType}
	}
	if err := checkLength(s.name, body, limit); err != nil {
		return err
	}
	return m.parse(s, body)
}

func unknownType(typ string) error {
	return &Error{kind: errType, Field: "type", Detail: "is " + excerpt(typ) + ", expected one of the ten message types"}
}

// requireAccount refuses a message about an account outside of the ranges that the two
// peers share.
func (v View) requireAccount(m *message) error {
	if err := m.requireID(creditorField, v.PeerCreditors, errForeignID, "the peer's creditors"); err != nil {
		return err
	}
	return m.requireID(debtorField, v.PeerDebtors, errForeignID, "the peer's debtors")
}

// requireCoordinator refuses a message about a transfer that the agent among the two peers
// cannot have requested. ("Incoming", 3.)
func (v View) requireCoordinator(m *message) error {
	if !m.schema.hasCoordinatorID() {
		return nil
	}
	typ := m.coordinatorType()
	if v.Owner == nodetype.CreditorsAgent || v.Peer == nodetype.CreditorsAgent {
		switch typ {
		case direct:
			return m.requireCoordinatorID(creditorField)
		case agent:
			return m.requireID(coordinatorIDField, v.PeerCreditors, errCoordinator, "the peer's creditors")
		}
		return m.refuseCoordinatorType(`"direct" or "agent" between an authority and a creditors agent`)
	}
	if typ != issuing {
		return m.refuseCoordinatorType(`"issuing" between an authority and a debtors agent`)
	}
	// creditor_id is 0 because of the range of creditors.
	return m.requireCoordinatorID(debtorField)
}

// requireID refuses the message unless the ID in field i is in s; whose describes the
// range in the error.
func (m *message) requireID(i int, s Subnet, kind error, whose string) error {
	id := m.values[i].integer
	if s.Contains(id) {
		return nil
	}
	return &Error{
		kind: kind, Type: m.schema.name, Field: m.schema.fields[i].name,
		Detail: fmt.Sprintf("is %d (0x%016x), which is not one of %s: expected 0x%v", id, uint64(id), whose, s),
	}
}

// requireCoordinatorID refuses the message unless its coordinator ID equals the ID in
// field i.
func (m *message) requireCoordinatorID(i int) error {
	coordinator, expected := m.values[coordinatorIDField].integer, m.values[i].integer
	if coordinator == expected {
		return nil
	}
	return &Error{
		kind: errCoordinator, Type: m.schema.name, Field: "coordinator_id",
		Detail: fmt.Sprintf("is %d, expected the %s %d as coordinator_type is %s", coordinator, m.schema.fields[i].name, expected,
			strconv.Quote(m.coordinatorType())),
	}
}

func (m *message) refuseCoordinatorType(expected string) error {
	return &Error{
		kind: errCoordinator, Type: m.schema.name, Field: "coordinator_type",
		Detail: "is " + excerpt(m.values[coordinatorTypeField].text) + ", expected " + expected,
	}
}

// translateID translates the ID in field i, which must be in the subnet from.
func (m *message) translateID(i int, from, to Subnet) {
	m.values[i].integer = from.translate(m.values[i].integer, to)
}
