package smp

import "time"

// maxAhead is how far a message's timestamp may be in the future.
const maxAhead = 7200 * time.Second

// ahead returns how far a parsed message's timestamp is in the future, in microseconds.
func (m *message) ahead(now time.Time) int64 {
	return m.values[tsField].integer - now.UnixMicro()
}

// FromFuture reports whether the timestamp of a message is so far after now that
// [View.Incoming] refuses the message for that reason. It returns false for an invalid message.
func FromFuture(typ string, body []byte, now time.Time) bool {
	s := schemaOf(typ)
	if s == nil || checkLength(s.name, body, MaxBody) != nil {
		return false
	}
	var m message
	return m.parse(s, body) == nil && m.ahead(now) > maxAhead.Microseconds()
}
