package smp

import (
	"errors"
	"strconv"
)

// What can be wrong with a message. Every [Error] is one of these:
//
//	if errors.Is(err, smp.ErrForeignID) { ... }
var (
	// ErrContentType: the content type is not "application/json".
	ErrContentType = errors.New("unsupported content type")
	// ErrType: no such message type, or one that goes the other way.
	ErrType = errors.New("message type not allowed")
	// ErrTooLong: the body is over [MaxBody] or [MaxApplicationBody].
	ErrTooLong = errors.New("message too long")
	// ErrSyntax: the body is not exactly one JSON object in UTF-8.
	ErrSyntax = errors.New("not a JSON object")
	// ErrField: a field is missing, given twice, out of its limits, or at odds
	// with another field.
	ErrField = errors.New("invalid field")
	// ErrForeignID: an ID lies outside of the ranges agreed with the peer.
	ErrForeignID = errors.New("foreign ID")
	// ErrCoordinator: the peer named a coordinator which it can not speak of.
	ErrCoordinator = errors.New("invalid coordinator")
	// ErrFuture: the message's timestamp is more than two hours ahead.
	ErrFuture = errors.New("timestamp in the future")
)

// ErrView is what [View.Check] returns. It is no [Error]: the message is not to
// blame, and goes through once the view has been corrected.
var ErrView = errors.New("inconsistent view of a peer")

// Error describes why a message was refused. Its text is one short line of
// printable ASCII, fit for a log and for the peer's eyes: it quotes at most a
// few dozen bytes of the message, and nothing of config_data, transfer_note and
// debtor_info_iri, which belong to the users.
type Error struct {
	Kind   error  // one of the Err… variables, which errors.Is finds
	Type   string // the message's type; empty if that is what is wrong
	Field  string // the field at fault; empty if no single one is
	Detail string // what is wrong, and what was expected
}

// Error is for example "invalid PrepareTransfer: max_locked_amount is -1,
// expected an integer from 0 to 9223372036854775807".
func (e *Error) Error() string {
	subject := e.Type
	if subject == "" {
		subject = "message"
	}
	if e.Field == "" {
		return "invalid " + subject + ": " + e.Detail
	}
	return "invalid " + subject + ": " + e.Field + " " + e.Detail
}

// Unwrap returns the error's kind.
func (e *Error) Unwrap() error { return e.Kind }

// maxExcerpt bounds how many bytes of hostile input an error may quote.
const maxExcerpt = 40

// excerpt quotes the beginning of something received, so that it is safe to
// print whatever it holds.
func excerpt[T string | []byte](s T) string {
	if len(s) > maxExcerpt {
		return strconv.QuoteToASCII(string(s[:maxExcerpt])) + "..."
	}
	return strconv.QuoteToASCII(string(s))
}
