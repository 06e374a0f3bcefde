package smp

import (
	"errors"
	"strconv"
)

// The kinds of errors in a message. Every [Error] wraps one of these.
var (
	// errContentType: the content type is not "application/json".
	errContentType = errors.New("unsupported content type")
	// errType: the message type is unknown, or not allowed in this direction.
	errType = errors.New("message type not allowed")
	// errTooLong: the body is over [MaxBody] or [MaxApplicationBody].
	errTooLong = errors.New("message too long")
	// errSyntax: the body is not exactly one JSON object in UTF-8.
	errSyntax = errors.New("not a JSON object")
	// errField: a field is missing, given twice, out of its limits, or inconsistent with
	// another field.
	errField = errors.New("invalid field")
	// errForeignID: an ID is outside of the ranges of the [View].
	errForeignID = errors.New("foreign ID")
	// errCoordinator: the message has a coordinator that the peer cannot be.
	errCoordinator = errors.New("invalid coordinator")
	// errFuture: the message's timestamp is more than two hours in the future.
	errFuture = errors.New("timestamp in the future")
)

// ErrView is returned by [View.Check], [View.Outgoing] and [View.Incoming]. It is not an
// [Error]: the message is not at fault, and may be accepted after the view has been
// corrected.
var ErrView = errors.New("inconsistent view of a peer")

// Error describes why a message was refused. Its text is one short line of printable
// ASCII, suitable for a log and for the peer: it quotes at most a few dozen bytes of the
// message, and nothing of config_data, transfer_note and debtor_info_iri, which are
// private to users.
type Error struct {
	kind   error  // one of the variables above
	Type   string // the message's type; empty if it is invalid, and in errors of [PeekIDs]
	Field  string // the invalid field; empty if the error is not about a single field
	Detail string // what is wrong, and what was expected
}

// Error returns, for example, "invalid PrepareTransfer: max_locked_amount is -1, expected
// an integer from 0 to 9223372036854775807".
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
func (e *Error) Unwrap() error { return e.kind }

// maxExcerpt bounds how many bytes of untrusted input an error may quote.
const maxExcerpt = 40

// excerpt quotes the beginning of untrusted input in printable ASCII.
func excerpt[T string | []byte](s T) string {
	if len(s) > maxExcerpt {
		return strconv.QuoteToASCII(string(s[:maxExcerpt])) + "..."
	}
	return strconv.QuoteToASCII(string(s))
}
