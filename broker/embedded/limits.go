package embedded

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"peerlink/broker"
)

const (
	// maxName is the longest name of a queue, exchange or peer, routing key,
	// message type and content type, in bytes: AMQP's short string, so that
	// whatever is stored here could also be stored in RabbitMQ.
	maxName = 255
	// maxHeaders bounds the application headers of a message in their stored form.
	maxHeaders = 64 << 10
	// maxReason is the longest reason for setting a message aside; more is cut.
	maxReason = 4 << 10
	// rowOverhead is what a message counts beyond its texts and body when
	// bytes are bounded: about what it costs in memory.
	rowOverhead = 200
)

// limits are what is checked before something is queued for the writer: there
// it would fail the transaction of everybody, for ever.
type limits struct {
	maxBody int
}

// checkName checks the name of something that must have one.
func checkName(what, s string) error {
	if s == "" {
		return fmt.Errorf("%w: %s is empty", ErrInvalid, what)
	}
	return checkText(what, s)
}

// checkText checks a text of limited length: UTF-8 without control characters.
func checkText(what, s string) error {
	switch {
	case len(s) > maxName:
		return fmt.Errorf("%w: %s has %d bytes, at most %d are possible", ErrInvalid, what, len(s), maxName)
	case !utf8.ValidString(s):
		return fmt.Errorf("%w: %s %q is not UTF-8", ErrInvalid, what, s)
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return fmt.Errorf("%w: %s %q has control characters", ErrInvalid, what, s)
		}
	}
	return nil
}

// checkMessage checks a message's texts and body. Headers are checked when
// they are encoded.
func (l limits) checkMessage(m *broker.Incoming) error {
	if err := checkText("routing key", m.RoutingKey); err != nil {
		return err
	}
	if err := checkText("message type", m.Type); err != nil {
		return err
	}
	if err := checkText("content type", m.ContentType); err != nil {
		return err
	}
	if len(m.Body) > l.maxBody {
		return fmt.Errorf("%w: body has %d bytes, at most %d are possible", ErrInvalid, len(m.Body), l.maxBody)
	}
	return nil
}

// reasonText makes any text fit for the set_aside table.
func reasonText(s string) string {
	if len(s) > maxReason {
		s = s[:maxReason]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// row is a message in the form in which it is stored.
type row struct {
	message *broker.Incoming // its Exchange and Headers are not used
	headers string
}

// size is what the row counts when bytes are bounded.
func (r row) size() int {
	m := r.message
	return rowSize(m.RoutingKey, m.Type, m.ContentType, r.headers, m.Body)
}

// rowSize is row.size of a message that was read: what is freed is what was
// counted.
func rowSize(routingKey, messageType, contentType, headers string, body []byte) int {
	return rowOverhead + len(routingKey) + len(messageType) + len(contentType) + len(headers) + len(body)
}

// incomingRow checks a received message and encodes its headers.
func (l limits) incomingRow(m *broker.Incoming) (row, error) {
	if err := checkName("exchange", m.Exchange); err != nil {
		return row{}, err
	}
	if err := l.checkMessage(m); err != nil {
		return row{}, err
	}
	headers, err := encodeHeaders(m.Headers)
	if err != nil {
		return row{}, err
	}
	return row{message: m, headers: headers}, nil
}

// outgoingRow checks a message of an application.
func (l limits) outgoingRow(routingKey string, o broker.Outgoing) (row, error) {
	m := &broker.Incoming{RoutingKey: routingKey, Type: o.Type, ContentType: o.ContentType, Body: o.Body}
	return row{message: m}, l.checkMessage(m)
}
