// Package smp implements the ten messages of the Swaptacular Messaging Protocol 2.1 in
// JSON: it validates them, translates them between the ID ranges of two peers, and
// computes their routing keys. It uses no network and no broker: its functions take bytes,
// return bytes or an error, and have no side effects.
//
// # The model
//
// An accounting authority (AA) keeps accounts. An account is identified by two signed
// 64-bit IDs: the debtor, whose currency it holds, and the creditor, who owns it.
// Creditors agents (CA) and debtors agents (DA) send requests to an authority, the "in"
// messages; the authority sends answers and notifications, the "out" messages:
//
//	in   ConfigureAccount  PrepareTransfer  FinalizeTransfer
//	out  RejectedConfig  RejectedTransfer  PreparedTransfer  FinalizedTransfer
//	     AccountUpdate  AccountPurge  AccountTransfer
//
// Each message has its type, both IDs and a timestamp, and is otherwise a flat list of
// fields with individual limits; schema.go has all of them in one table. Messages about a
// transfer also identify its coordinator, the party that requested the transfer, and the
// request.
//
// Two peers share a range of creditors and a range of debtors, each a [Subnet]: IDs with
// the same leading bits. A [View] has these ranges for a node and one peer; messages with IDs
// outside of its ranges are refused, in both directions. A creditors agent keeps its
// creditors in a subnet of its own, the same for all its peers, but in messages to and from
// an authority it uses the subnet that this authority has assigned. So a creditors agent's
// view also translates IDs: the leading bits are replaced, the other bits stay.
//
//	application → [View.Outgoing] → peer's [View.Incoming] → its application
//
// The sending node calls Outgoing for messages of its own application; the receiving node
// calls Incoming for all messages that arrive, and validates them completely. Incoming
// also returns the [Headers] and the [RoutingKey] by which the application's broker
// distributes the messages.
//
// # What is accepted, what is written
//
// Written: one JSON object without white space, exactly the fields of the message's type
// in the order of the table; integers without a decimal point, floats always with a point
// or an exponent; timestamps as 2023-01-01T12:00:00+00:00, with six fractional digits if
// not zero, in their original offset; dates as 2023-01-01; text unchanged, with only the
// escapes that JSON requires. Reading and writing such a message again returns the same
// bytes.
//
// Accepted: what the Swaptacular reference accepts (it uses marshmallow, whose fields
// convert many forms), as far as the meaning is unambiguous:
//
//   - Unknown properties are dropped; a missing or null one is an error.
//   - An integer may be written as 5, as "5" or as 5.0, the last up to 2⁵³, since
//     parsers differ about larger ones. 5.7 and 5e2 are refused, where the
//     reference reads 5 and 500. A float may be written as 5, 5.0, 5e0 or "5.0".
//     Infinities and NaN are refused.
//   - Timestamps are ISO 8601 as described in timestamp.go. A timestamp without an
//     offset does not identify an instant and is refused.
//   - A known property given twice is refused; the reference takes the last.
//   - Text must be Unicode: no invalid UTF-8, no unpaired surrogates.
//   - Limits on text apply to the whole text; the reference accepts an additional
//     newline at the end of a transfer_note_format or debtor_info_sha256.
//
// The input is bounded: [MaxBody] bytes from a peer, [MaxApplicationBody] from the node's
// own application, and arrays and objects nested at most 32 deep, the message included.
//
// The package has no state: all functions may be called concurrently.
//
// The package implements the specification's part "Messages"; comments refer to its
// sections.
package smp
