package local

import (
	"time"

	"peerlink/stomp"
)

// bounds are what one client can use up at most.
type bounds struct {
	connections   int // that have shown the passcode
	opening       int // that have not, for each listener; beyond that the oldest makes room
	subscriptions int // of a connection
	held          int // sum of the prefetch-counts of a connection's subscriptions
	pending       int // operations of a connection that wait for the disk, or for their receipt to be written

	connectTime time.Duration // for the client's CONNECT
	guessPause  time.Duration // before a wrong passcode is answered
	nackPause   time.Duration // before a message is given back
	endTime     time.Duration // for what is under way when a session ends
}

func defaultBounds() bounds {
	return bounds{
		connections:   64,
		opening:       512,
		subscriptions: 64,
		held:          20_000,
		pending:       4096,
		connectTime:   stomp.DefaultConnectTimeout,
		guessPause:    time.Second,
		nackPause:     time.Second,
		endTime:       10 * time.Second,
	}
}

const (
	// defaultPrefetch is the prefetch-count of a subscription that names none.
	defaultPrefetch = 100
	// maxPrefetch is the largest prefetch-count of a subscription.
	maxPrefetch = 10_000
	// maxID is the longest id of a subscription, in bytes: it must fit,
	// escaped, into the ack header together with a number.
	maxID = 200
)

// frameLimits are those of the peers' links, but for the body: a message for a
// peer has to fit there (see session.send), while one from a peer has grown
// when it was translated to longer IDs.
func frameLimits() stomp.Limits {
	l := stomp.DefaultLimits()
	l.Body = 64 << 10
	return l
}
