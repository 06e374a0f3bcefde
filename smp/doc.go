// Package smp knows the ten messages of the Swaptacular Messaging Protocol 2.1
// in JSON: it checks them, translates them between the ID ranges of two peers,
// and computes how to route them. It knows nothing of networks or brokers: bytes
// go in, bytes or an [Error] come out, and nothing else happens.
//
// # The model
//
// An accounting authority (AA) keeps accounts. An account is named by two
// signed 64-bit IDs: the debtor, whose currency it holds, and the creditor, who
// owns it. Creditors agents (CA) and debtors agents (DA) send an authority
// requests, the "in" messages; it answers and informs with "out" messages:
//
//	in   ConfigureAccount  PrepareTransfer  FinalizeTransfer
//	out  RejectedConfig  RejectedTransfer  PreparedTransfer  FinalizedTransfer
//	     AccountUpdate  AccountPurge  AccountTransfer
//
// Each message carries its type, both IDs and a timestamp, and is otherwise a
// flat list of fields, each with limits of its own; schema.go holds them all as
// one table. Messages about a transfer also name its coordinator: who asked
// for it, and which request it was.
//
// Two peers share a range of creditors and a range of debtors, each a [Subnet]:
// IDs with the same leading bits. What one node holds about one peer is a
// [View], and a message outside of its ranges does not pass, in either
// direction. A creditors agent keeps its creditors in a subnet of its own, the
// same for all its peers, but appears at each authority in the subnet it was
// given there. So a creditors agent's view also translates: the leading bits
// are exchanged, the others stay.
//
//	application → [View.Outgoing] → peer's [View.Incoming] → its application
//
// Outgoing is what the sending node does to a message of its own application;
// Incoming is what the receiving node does to whatever arrives, and there
// nothing is taken on trust. Incoming also gives the [Headers] and the
// [RoutingKey] with which the application's broker spreads the messages.
//
// # What is accepted, what is written
//
// Written: one JSON object without white space, exactly the fields of the
// message's type in the order of the table; integers without a point, floats
// always with a point or an exponent; timestamps as 2023-01-01T12:00:00+00:00,
// with six digits of a second if not zero, in the offset they came with; dates
// as 2023-01-01; text as it is, escaped only where JSON demands it. What was
// written is read again to exactly the same bytes.
//
// Accepted: what the Swaptacular reference accepts (it reads with marshmallow,
// whose fields convert a lot), as far as it has one meaning:
//
//   - Unknown properties are dropped; a missing or null one is an error.
//   - An integer may be written as 5, as "5" or as 5.0, the last up to 2⁵³, since
//     beyond that readers differ about what it says. 5.7 and 5e2 are refused,
//     where the reference takes 5 and 500. A float may be written as 5, 5.0, 5e0
//     or "5.0". Nothing infinite, and no NaN.
//   - Timestamps are ISO 8601 as in timestamp.go. One without an offset names no
//     instant and is refused.
//   - A known property given twice is refused; the reference takes the last.
//   - Text must be Unicode: no invalid UTF-8, no unpaired surrogates.
//   - Limits on text hold for the whole text; the reference lets a newline
//     slip in after a transfer_note_format or debtor_info_sha256.
//
// Whatever arrives is bounded: [MaxBody] bytes from a peer, [MaxApplicationBody]
// from the node's own application, and unknown properties nested at most 32 deep.
//
// There is no state: everything here may be called from many goroutines at once.
//
// The package follows the specification's part "Messages"; comments name its
// sections.
package smp
