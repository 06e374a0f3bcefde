package smp

import (
	"iter"

	"peerlink/node/nodetype"
)

// Received is a message from a peer, translated for the node's application.
type Received struct {
	Type       string // the message's type
	Body       []byte // JSON, with the application's IDs
	RoutingKey string // for routing to the application's queues, see [RoutingKey]
	Headers    Headers
}

// Headers allow an application to select messages without parsing them. IDs are those of
// the translated body. (Section "Incoming", 5.)
type Headers struct {
	MessageType          string
	DebtorID, CreditorID int64

	// CoordinatorType is empty if the message has no coordinator ID. That includes an
	// AccountTransfer, although it has a coordinator type.
	CoordinatorType string
	CoordinatorID   int64

	// AtCreditorsAgent reports whether the headers CACreditors and CATrade are present.
	// They report which parts of a creditors agent the message is for: the part that
	// serves its creditors, the part that trades in circles between them, or both.
	AtCreditorsAgent     bool
	CACreditors, CATrade bool
}

// All returns an iterator over the headers that are present, always in the same order.
// Values are string, int64 or bool.
func (h Headers) All() iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		_ = yield("message-type", h.MessageType) &&
			yield("debtor-id", h.DebtorID) &&
			yield("creditor-id", h.CreditorID) &&
			(!h.AtCreditorsAgent ||
				yield("ca-creditors", h.CACreditors) &&
					yield("ca-trade", h.CATrade)) &&
			(h.CoordinatorType == "" ||
				yield("coordinator-id", h.CoordinatorID) &&
					yield("coordinator-type", h.CoordinatorType))
	}
}

// headers returns the headers of a translated message, for the application of a node of
// type owner.
func (m *message) headers(owner nodetype.Type) Headers {
	h := Headers{
		MessageType: m.schema.name,
		DebtorID:    m.values[debtorField].integer,
		CreditorID:  m.values[creditorField].integer,
	}
	if m.schema.hasCoordinatorID() {
		h.CoordinatorType = m.coordinatorType()
		h.CoordinatorID = m.values[coordinatorIDField].integer
	}
	if owner == nodetype.CreditorsAgent {
		tradeAccount := uint64(h.CreditorID)&tradeBits == 0
		tradeTransfer := h.CoordinatorType == agent
		tradeNotification := m.schema.name == AccountTransfer && m.coordinatorType() == agent
		h.AtCreditorsAgent = true
		h.CACreditors = !tradeAccount && !tradeTransfer
		h.CATrade = tradeAccount || tradeTransfer || tradeNotification
	}
	return h
}

// tradeBits are zero in the creditor IDs that a creditors agent reserves for its own
// accounts, with which it trades. The leading bits that a subnet fixes are above them.
const tradeBits = 0xff << 32

// routingKey returns the routing key of the message with these headers at a node of type
// owner. At a creditors agent, a message with CoordinatorType "agent" is routed by its
// coordinator, regardless of the account's owner. (Section "Incoming", 6.)
func (h Headers) routingKey(owner nodetype.Type) string {
	switch {
	case owner == nodetype.AccountingAuthority:
		return RoutingKey(h.DebtorID, h.CreditorID)
	case owner == nodetype.DebtorsAgent:
		return RoutingKey(h.DebtorID)
	case h.CoordinatorType == agent:
		return RoutingKey(h.CoordinatorID)
	}
	return RoutingKey(h.CreditorID)
}
