package link

import (
	"testing"

	"peerlink/stomp"
)

// The text of an ERROR from a peer is interpreted only as a whole: known phrases that it
// quotes from a message of this node have no meaning.
func TestTextsOfPeers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"invalid PrepareTransfer: ts is 8000 seconds in the future, at most 7200 are allowed": "future",
		"The message timestamp is 8000 seconds in the future.":                                "future",
		"Too many connections from one peer.":                                                 "connections",
		"Internal server error.":                                                              "internal",

		`invalid PrepareTransfer: coordinator_type is "in the future", expected "direct" or "agent"`:                       "",
		`invalid PrepareTransfer: recipient is "ts is 8000 seconds in the future, at most 7200 are allowed"`:               "",
		"invalid X: coordinator_type is \"\ninvalid X: ts is 8000 seconds in the future, at most 7200 are allowed":         "",
		`invalid PrepareTransfer: coordinator_type is "Too many connections from one peer.", expected "direct" or "agent"`: "",
		`invalid PrepareTransfer: coordinator_type is "internal server error", expected "direct" or "agent"`:               "",
		"in the future": "",
	} {
		refused, got := &stomp.ServerError{Message: text}, ""
		switch {
		case isFromFuture(refused):
			got = "future"
		case isTooManyConnections(refused):
			got = "connections"
		case isInternalError(refused):
			got = "internal"
		}
		if got != want {
			t.Errorf("%q means %q, want %q", text, got, want)
		}
	}
}
