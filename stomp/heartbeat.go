package stomp

import (
	"fmt"
	"strings"
	"time"
)

// What a [HeartBeat] that says nothing stands for.
const (
	DefaultSend    = 5 * time.Second
	DefaultReceive = 30 * time.Second
	DefaultGrace   = 15 * time.Second
)

// maxHeartBeat is the longest interval that a heart-beat header may have: some
// eleven days.
const maxHeartBeat = 999_999_999 * time.Millisecond

// HeartBeat is what one side of a connection says about signs of life (STOMP
// 1.2, "Heart-beating"), or what both have agreed on.
//
// In a configuration, the defaults apply when neither Send nor Receive is set;
// make them negative to turn off both directions.
type HeartBeat struct {
	// Send is the interval in which this side is able to send something,
	// Receive the one in which it wants to receive something. Zero or less
	// means not at all. In the header they are rounded up to milliseconds.
	Send, Receive time.Duration
	// Grace is how much longer than agreed silence is tolerated; 0 means
	// DefaultGrace. The other side does not learn of it.
	Grace time.Duration
}

// ParseHeartBeat reads the value of a heart-beat header, "<send>,<receive>" in
// milliseconds of at most 9 digits. The empty string, for a header that is not
// there, is like "0,0". The error is a [*ProtocolError].
func ParseHeartBeat(s string) (HeartBeat, error) {
	if s == "" {
		return HeartBeat{}, nil
	}
	first, second, _ := strings.Cut(s, ",")
	send, ok1 := parseDecimal(first)
	receive, ok2 := parseDecimal(second)
	limit := uint64(maxHeartBeat.Milliseconds())
	if !ok1 || !ok2 || send > limit || receive > limit {
		return HeartBeat{}, protocolErrorf("heart-beat is not two numbers of milliseconds up to %d", limit)
	}
	return HeartBeat{
		Send:    time.Duration(send) * time.Millisecond,
		Receive: time.Duration(receive) * time.Millisecond,
	}, nil
}

// String is the value of the heart-beat header.
func (h HeartBeat) String() string {
	return fmt.Sprintf("%d,%d", milliseconds(h.Send), milliseconds(h.Receive))
}

// Negotiate gives the intervals that hold for this side: Send is the longest
// time it lets pass without sending, Receive the longest the other side does. A
// direction is off, 0, when either side wants it so; otherwise the longer
// interval counts. So neither can be made to send more often than it offered.
func (h HeartBeat) Negotiate(other HeartBeat) HeartBeat {
	return HeartBeat{
		Send:    agree(h.Send, other.Receive),
		Receive: agree(other.Send, h.Receive),
		Grace:   h.Grace,
	}
}

func agree(send, receive time.Duration) time.Duration {
	if send <= 0 || receive <= 0 {
		return 0
	}
	return max(send, receive)
}

func milliseconds(d time.Duration) int64 {
	d = min(max(d, 0), maxHeartBeat)
	return (d + time.Millisecond - 1).Milliseconds()
}

func (h HeartBeat) orDefault() HeartBeat {
	if h.Send == 0 && h.Receive == 0 {
		h.Send, h.Receive = DefaultSend, DefaultReceive
	}
	return h
}

// silence is how long nothing may come in on a connection with these agreed
// intervals; 0 means for ever.
func (h HeartBeat) silence() time.Duration {
	switch {
	case h.Receive <= 0:
		return 0
	case h.Grace == 0:
		return h.Receive + DefaultGrace
	default:
		return h.Receive + max(h.Grace, 0)
	}
}
