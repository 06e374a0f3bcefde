package local

import (
	"time"

	"peerlink/internal/pendingconns"
	"peerlink/stomp"
)

// bounds are the maximum resources of clients.
type bounds struct {
	connections   int // connections that have sent the passcode
	opening       int // connections of each listener that have not sent the passcode; if there are more, one is closed
	subscriptions int // of a connection
	prefetch      int // sum of the prefetch-counts of a connection's subscriptions
	transactions  int // open transactions of a connection
	// transactionSends and transactionBytes bound the messages in all open transactions of a
	// connection together.
	transactionSends, transactionBytes int
	pending                            int // operations of a connection that are not durable yet, or whose receipt is not written yet

	connectTime time.Duration // for the opening handshake, guessPause included
	guessPause  time.Duration // before a wrong or missing passcode is answered
	nackPause   time.Duration // before messages are returned by NACK
	endTime     time.Duration // for operations in progress when a session ends
	stopTime    time.Duration // for all connections to end when the door is closed; half of it for operations in progress, instead of endTime
}

func defaultBounds() bounds {
	return bounds{
		connections:   64,
		opening:       openingLimit(pendingconns.OpenFiles()),
		subscriptions: 64,
		prefetch:      2 * maxPrefetch,
		transactions:  16,

		transactionSends: 1000,
		transactionBytes: 4 << 20,
		pending:          4096,
		connectTime:      stomp.DefaultConnectTimeout,
		guessPause:       time.Second,
		nackPause:        time.Second,
		endTime:          10 * time.Second,
		stopTime:         4 * time.Second,
	}
}

// openingLimit returns how many connections of each listener may be open without having
// sent the passcode, in a process with this limit of open files. The two listeners of a
// door together may use a sixteenth of the limit (but 8 to 1,024 files): two thirds are
// for connections of peers, see link.Config, and a sixteenth each for the servers of
// --publish and --admin.
func openingLimit(openFiles int) int { return max(min(512, openFiles/32), 4) }

const (
	// defaultPrefetch is the prefetch-count of a subscription without that header.
	defaultPrefetch = 100
	// maxPrefetch is the largest prefetch-count of a subscription, as in AMQP.
	maxPrefetch = 65_535
	// maxID is the maximum length of a subscription's id, or of its destination, in bytes:
	// escaped, it must fit into the ack header together with a number.
	maxID = maxHeaderValue/2 - 25
	// maxHeaderValue is the maximum size of the value of a header in bytes.
	maxHeaderValue = 4096
)

// minHeartBeat is the shortest interval of heart-beats.
const minHeartBeat = time.Second

// frameLimits returns the limits of frames. They are larger than those of links with peers:
// applications and their libraries add headers of their own, a message from a peer may
// have grown when it was translated to longer IDs, and a message to a peer may shrink (see
// smp.MaxApplicationBody).
func frameLimits() stomp.Limits {
	l := stomp.DefaultLimits()
	l.Headers, l.HeaderValue, l.HeaderBytes = 100, maxHeaderValue, 32<<10
	l.Body = 64 << 10
	return l
}
