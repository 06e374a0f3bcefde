package link

import (
	"errors"
	"regexp"

	"peerlink/stomp"
)

// STOMP has no codes for errors. The texts below are those of our own nodes and of the
// reference implementation. The whole text has to match: errors quote what this node has
// sent, so that a part of one may come from an application. If a peer uses other words,
// its errors count like all others.
var (
	fromFutureText  = regexp.MustCompile(`^(invalid \w+: ts is \d+ seconds in the future, at most \d+ are allowed|The message timestamp is \d+ seconds in the future\.)$`)
	tooManyText     = regexp.MustCompile(`^Too many connections from one peer\.$`)
	internalErrText = regexp.MustCompile(`^Internal server error\.$`)
)

// isFromFuture reports whether a peer has refused a message for a timestamp in the future.
func isFromFuture(refused *stomp.ServerError) bool {
	return fromFutureText.MatchString(refused.Message)
}

// isTooManyConnections reports whether a peer has refused a connection because it has too
// many from this node.
func isTooManyConnections(err error) bool {
	refused := new(stomp.ServerError)
	return errors.As(err, &refused) && tooManyText.MatchString(refused.Message)
}

// isInternalError reports whether a peer says that the fault is its own.
func isInternalError(refused *stomp.ServerError) bool {
	return internalErrText.MatchString(refused.Message)
}
