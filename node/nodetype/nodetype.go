// Package nodetype defines the three types of Swaptacular nodes, and the properties
// that depend on the type alone: its form in certificates and files, the types that can
// be its peers, and the exchanges for its messages.
//
// The package imports no other package of peerlink, so that the packages for
// certificates, for messages and for the node's directory can all use it.
package nodetype

import "fmt"

// Type is the type of a Swaptacular node. The zero Type is not valid.
type Type int

// The three node types ("Swaptacular SSL/TLS Certificates", section "Who is who").
const (
	// AccountingAuthority keeps the balances. Its node ID is chosen: the top
	// 32 bits of the debtor IDs it manages.
	AccountingAuthority Type = iota + 1
	// CreditorsAgent connects currency holders to accounting authorities.
	CreditorsAgent
	// DebtorsAgent connects currency issuers to one accounting authority.
	DebtorsAgent
)

// All lists the node types.
var All = []Type{AccountingAuthority, CreditorsAgent, DebtorsAgent}

var names = map[Type]struct{ ou, slug, short, inbox string }{
	AccountingAuthority: {"Accounting Authorities", "accounting-authority", "AA", "accounts_in"},
	CreditorsAgent:      {"Creditors Agents", "creditors-agent", "CA", "creditors_in"},
	DebtorsAgent:        {"Debtors Agents", "debtors-agent", "DA", "debtors_in"},
}

// ParseOU parses an organizationalUnitName attribute, or the content of db/nodetype,
// such as "Creditors Agents".
func ParseOU(s string) (Type, error) {
	for _, t := range All {
		if names[t].ou == s {
			return t, nil
		}
	}
	return 0, fmt.Errorf("unknown node type %q: expected %q, %q or %q", s,
		names[AccountingAuthority].ou, names[CreditorsAgent].ou, names[DebtorsAgent].ou)
}

// Parse parses the form used on the command line, such as "creditors-agent", or the
// short form "CA".
func Parse(s string) (Type, error) {
	for _, t := range All {
		if names[t].slug == s || names[t].short == s {
			return t, nil
		}
	}
	return 0, fmt.Errorf("unknown node type %q: expected accounting-authority, creditors-agent or debtors-agent", s)
}

// OU returns the organizationalUnitName of the type's certificates, which is also the
// content of db/nodetype, such as "Accounting Authorities".
func (t Type) OU() string { return names[t].ou }

// String returns the form used on the command line, such as "accounting-authority".
func (t Type) String() string {
	if n, ok := names[t]; ok {
		return n.slug
	}
	return fmt.Sprintf("nodetype.Type(%d)", int(t))
}

// Short returns the two-letter form: "AA", "CA" or "DA".
func (t Type) Short() string { return names[t].short }

// Inbox returns the exchange for the messages that a node of this type receives:
// "accounts_in", "creditors_in" or "debtors_in".
func (t Type) Inbox() string { return names[t].inbox }

// Destination returns the STOMP destination to which peers of a node of this type
// send, such as "/exchange/accounts_in".
func (t Type) Destination() string { return "/exchange/" + names[t].inbox }

// Outbox returns the exchange to which the applications of a node of this type send
// the messages for peers of the given type: "to_creditors", "to_debtors",
// "creditors_out" or "debtors_out".
func (t Type) Outbox(peer Type) string {
	switch {
	case t == CreditorsAgent:
		return "creditors_out"
	case t == DebtorsAgent:
		return "debtors_out"
	case peer == CreditorsAgent:
		return "to_creditors"
	default:
		return "to_debtors"
	}
}

// Outboxes returns the exchanges to which the applications of a node of this type may
// send.
func (t Type) Outboxes() []string {
	if t == AccountingAuthority {
		return []string{t.Outbox(CreditorsAgent), t.Outbox(DebtorsAgent)}
	}
	return []string{t.Outbox(AccountingAuthority)}
}

// CanPeer reports whether nodes of types t and u can become peers. One of them must be
// an accounting authority, the other an agent of either type.
func (t Type) CanPeer(u Type) bool {
	return (t == AccountingAuthority) != (u == AccountingAuthority) && names[t].ou != "" && names[u].ou != ""
}

// IDDerived reports whether the node ID of nodes of this type is derived from the root
// key. The ID of an accounting authority is chosen.
func (t Type) IDDerived() bool { return t == CreditorsAgent || t == DebtorsAgent }
