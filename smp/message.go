package smp

import (
	"fmt"
	"math/bits"
)

// ContentType is the content type of all messages.
const ContentType = "application/json"

// Limits on input, in bytes.
const (
	// MaxBody is the maximum length of a body sent to or received from a peer, as in the
	// reference.
	MaxBody = 8192
	// MaxApplicationBody is the maximum length of a body from the node's own application.
	// It is larger than MaxBody, since white space, unknown properties and unnecessary
	// escapes are removed before the message is sent.
	MaxApplicationBody = 8 * MaxBody
)

// message is a parsed message: the values of its schema's fields, in the schema's order.
// Texts may share memory with the parsed body.
type message struct {
	schema *schema
	values [maxFields]value
}

// parse parses and validates a message, independently of its sender and receiver.
func (m *message) parse(s *schema, body []byte) error {
	*m = message{schema: s}
	var sc scanner
	if err := sc.open(body); err != nil {
		return &Error{kind: errSyntax, Type: s.name, Detail: err.Error()}
	}
	var seen uint32
	for hint := 0; ; {
		name, tok, more, err := sc.member()
		if err != nil {
			return &Error{kind: errSyntax, Type: s.name, Detail: err.Error()}
		}
		if !more {
			break
		}
		i := s.index(name, hint)
		if i < 0 {
			continue
		}
		f := &s.fields[i]
		if seen&(1<<i) != 0 {
			return &Error{kind: errField, Type: s.name, Field: f.name, Detail: "is given twice"}
		}
		seen |= 1 << i
		hint = i + 1
		var ok bool
		if m.values[i], ok = f.read(tok); !ok {
			return &Error{kind: errField, Type: s.name, Field: f.name, Detail: f.refusal(tok)}
		}
	}
	if missing := bits.TrailingZeros32(^seen); missing < len(s.fields) {
		f := &s.fields[missing]
		return &Error{kind: errField, Type: s.name, Field: f.name, Detail: "is missing, expected " + f.expectation()}
	}
	if name, detail := m.inconsistency(); name != "" {
		return &Error{kind: errField, Type: s.name, Field: name, Detail: detail}
	}
	return nil
}

// body returns the message as JSON; length is its expected length in bytes.
func (m *message) body(length int) []byte {
	b := make([]byte, 0, length)
	for i := range m.schema.fields {
		f := &m.schema.fields[i]
		if i == 0 {
			b = append(b, '{')
		} else {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, f.name...)
		b = append(b, '"', ':')
		b = f.append(b, m.values[i])
	}
	return append(b, '}')
}

// get returns the value of a field, or the zero value if there is no such field.
func (m *message) get(name string) value {
	if i := m.schema.position(name); i >= 0 {
		return m.values[i]
	}
	return value{}
}

// set sets the value of a field, if there is one of this name.
func (m *message) set(name string, v value) {
	if i := m.schema.position(name); i >= 0 {
		m.values[i] = v
	}
}

func (m *message) integer(name string) int64 { return m.get(name).integer }
func (m *message) text(name string) string   { return string(m.get(name).text) }

// coordinatorType returns the message's coordinator type, or "" if it has none.
func (m *message) coordinatorType() string {
	if !m.schema.hasCoordinatorType() {
		return ""
	}
	text := m.values[coordinatorTypeField].text
	for _, known := range [...]string{direct, agent, issuing} {
		if string(text) == known {
			return known // saves an allocation
		}
	}
	return string(text)
}

// checkLength returns an error for a body longer than limit, in bytes.
func checkLength(typ string, body []byte, limit int) error {
	if len(body) <= limit {
		return nil
	}
	return &Error{
		kind: errTooLong, Type: typ,
		Detail: fmt.Sprintf("body is %d bytes long, at most %d are allowed", len(body), limit),
	}
}
