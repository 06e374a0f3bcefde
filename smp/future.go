package smp

import "time"

// maxAhead is how far a peer's clock may be ahead.
const maxAhead = 7200 * time.Second

// ahead is how many microseconds a message that has been parsed lies in the
// future.
func (m *message) ahead(now time.Time) int64 {
	return m.values[tsField].integer - now.UnixMicro()
}

// FromFuture reports whether the timestamp of a message lies so far ahead of now
// that [View.Incoming] refuses it with [ErrFuture]. It is false for what is no
// valid message.
func FromFuture(typ string, body []byte, now time.Time) bool {
	s := schemaOf(typ)
	if s == nil || checkLength(s.name, body, MaxBody) != nil {
		return false
	}
	var m message
	return m.parse(s, body) == nil && m.ahead(now) > maxAhead.Microseconds()
}
