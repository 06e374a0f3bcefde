package stomp

import (
	"cmp"
	"time"
)

// A frame whose first byte has been received must be complete within frameGrace plus one
// second for each frameRate bytes that a frame may have within the limits. That is slower
// than any usable link, and stops peers that send single bytes to keep a connection open.
const (
	frameGrace = 30 * time.Second
	frameRate  = 1000
)

// Limits bound the frames of one connection. All but Headers are in bytes on the wire:
// escapes count, and in HeaderBytes also line ends. If a field is zero or negative, the
// value in [DefaultLimits] applies.
type Limits struct {
	Command     int // the command
	Headers     int // number of headers
	HeaderName  int // the name of one header
	HeaderValue int // the value of one header
	HeaderBytes int // all header lines together
	Body        int // the body
}

// DefaultLimits returns the limits of the reference implementation of Swaptacular's
// message transport. A peer may refuse any frame that exceeds them.
func DefaultLimits() Limits {
	return Limits{
		Command:     50,
		Headers:     50,
		HeaderName:  500,
		HeaderValue: 500,
		HeaderBytes: 4096,
		Body:        8192,
	}
}

func (l Limits) orDefault() Limits {
	d := DefaultLimits()
	return Limits{
		Command:     cmp.Or(max(l.Command, 0), d.Command),
		Headers:     cmp.Or(max(l.Headers, 0), d.Headers),
		HeaderName:  cmp.Or(max(l.HeaderName, 0), d.HeaderName),
		HeaderValue: cmp.Or(max(l.HeaderValue, 0), d.HeaderValue),
		HeaderBytes: cmp.Or(max(l.HeaderBytes, 0), d.HeaderBytes),
		Body:        cmp.Or(max(l.Body, 0), d.Body),
	}
}

// frameTime returns how long receiving a frame within the limits may take.
func (l Limits) frameTime() time.Duration {
	return frameGrace + time.Duration((l.Command+l.HeaderBytes+l.Body)/frameRate)*time.Second
}
