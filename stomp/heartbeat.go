package stomp

import (
	"fmt"
	"strings"
	"time"
)

// The defaults of [HeartBeat].
const (
	DefaultSend    = 5 * time.Second
	DefaultReceive = 30 * time.Second
	defaultGrace   = 15 * time.Second
)

// maxHeartBeat is the longest interval in a heart-beat header: some eleven days.
const maxHeartBeat = 999_999_999 * time.Millisecond

// HeartBeat holds the heart-beat intervals of one side of a connection (STOMP 1.2,
// "Heart-beating"), or those that both sides have agreed on.
//
// In a configuration, the defaults apply if Send and Receive are both 0. To turn off both
// directions, set both to negative values.
type HeartBeat struct {
	// Send is the interval in which this side can send data, Receive the interval in
	// which it wants to receive data. Zero or less means never. In the header the
	// intervals are rounded up to milliseconds.
	Send, Receive time.Duration
	// Grace is how much longer than agreed the other side may send nothing; 0 means 15 s,
	// a negative value none. It is not sent to the other side.
	Grace time.Duration
}

// ParseHeartBeat parses the value of a heart-beat header, "<send>,<receive>" in
// milliseconds of at most 9 digits. The empty string, for a missing header, is
// equivalent to "0,0". The error is a [*ProtocolError].
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

// String returns the value of the heart-beat header.
func (h HeartBeat) String() string {
	return fmt.Sprintf("%d,%d", milliseconds(h.Send), milliseconds(h.Receive))
}

// Negotiate returns the intervals of this side: Send is the longest time without
// sending, Receive the longest time in which the other side sends nothing. A direction
// is off, 0, if either side has turned it off; otherwise the longer interval applies.
// So neither side can be made to send more often than it has offered.
func (h HeartBeat) Negotiate(other HeartBeat) HeartBeat {
	return HeartBeat{
		Send:    agreedInterval(h.Send, other.Receive),
		Receive: agreedInterval(other.Send, h.Receive),
		Grace:   h.Grace,
	}
}

func agreedInterval(send, receive time.Duration) time.Duration {
	if send <= 0 || receive <= 0 {
		return 0
	}
	return max(send, receive)
}

// mirrored returns what the other side has to offer and to request so that both get what h
// requests and offers, but no interval that is shorter than shortest.
func (h HeartBeat) mirrored(shortest time.Duration) HeartBeat {
	interval := func(d time.Duration) time.Duration {
		if d <= 0 {
			return 0
		}
		return max(d, shortest)
	}
	return HeartBeat{Send: interval(h.Receive), Receive: interval(h.Send)}
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

// beatInterval returns after how much time without sending a heart-beat is sent on a connection
// with these agreed intervals; 0 means never. It leaves a quarter of the interval for delays in
// this process and in the network.
func (h HeartBeat) beatInterval() time.Duration { return max(h.Send-h.Send/4, 0) }

// maxSilence returns for how long the other side may send no data on a connection with
// these agreed intervals; 0 means forever.
func (h HeartBeat) maxSilence() time.Duration {
	switch {
	case h.Receive <= 0:
		return 0
	case h.Grace == 0:
		return h.Receive + defaultGrace
	default:
		return h.Receive + max(h.Grace, 0)
	}
}
