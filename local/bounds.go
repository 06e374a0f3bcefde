package local

import (
	"time"

	"peerlink/internal/pendingconns"
	"peerlink/stomp"
)

// bounds are the maximum resources of clients.
type bounds struct {
	connections   int // that have sent the passcode
	opening       int // that have not, for each listener; beyond that the oldest is closed
	subscriptions int // of a connection
	held          int // sum of the prefetch-counts of a connection's subscriptions
	pending       int // operations of a connection that are not durable yet, or whose receipt is not written yet

	connectTime time.Duration // for the client's CONNECT
	guessPause  time.Duration // before a wrong passcode is answered
	nackPause   time.Duration // before messages are returned by NACK
	endTime     time.Duration // for operations in progress when a session ends
}

func defaultBounds() bounds {
	return bounds{
		connections:   64,
		opening:       openingLimit(pendingconns.OpenFiles()),
		subscriptions: 64,
		held:          20_000,
		pending:       4096,
		connectTime:   stomp.DefaultConnectTimeout,
		guessPause:    time.Second,
		nackPause:     time.Second,
		endTime:       10 * time.Second,
	}
}

// openingLimit returns how many connections of each listener may wait for the passcode, in
// a process with this limit of open files. The two listeners of a door together have a
// sixteenth of it at most, or a few: two thirds are for the links' clients, see
// link.Config, and a sixteenth each for the servers of --publish and --admin.
func openingLimit(openFiles int) int { return max(min(512, openFiles/32), 4) }

const (
	// defaultPrefetch is the prefetch-count of a subscription without that header.
	defaultPrefetch = 100
	// maxPrefetch is the largest prefetch-count of a subscription.
	maxPrefetch = 10_000
	// maxID is the maximum length of a subscription's id in bytes: escaped, it must fit
	// into the ack header together with a number.
	maxID = 200
)

// frameLimits returns the limits of links with peers, except for the body: a message
// for a peer must fit into a frame there (see session.send), while a message from a
// peer has grown when it was translated to longer IDs.
func frameLimits() stomp.Limits {
	l := stomp.DefaultLimits()
	l.Body = 64 << 10
	return l
}
