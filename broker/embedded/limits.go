package embedded

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"peerlink/broker"
)

const (
	// maxName is the longest name of a queue, exchange or peer, routing key, message type
	// and content type, in bytes: that of AMQP's short string, so that RabbitMQ could
	// store every message stored here.
	maxName = 255
	// maxHeaders bounds the application headers of a message in their stored form, in
	// bytes.
	maxHeaders = 64 << 10
	// maxReason is the longest reason of a dead letter, in bytes; longer ones are
	// truncated.
	maxReason = 4 << 10
	// rowOverhead is added to the size of each message's texts and body where bytes are
	// bounded: about what a message costs in memory, and not less than in the file.
	rowOverhead = 200
)

// limits are checked before an operation is queued for the writer: an operation that
// violates them would fail the transaction of all callers at every attempt.
type limits struct {
	maxBody int
}

// checkName checks a name, which must not be empty.
func checkName(what, s string) error {
	if s == "" {
		return fmt.Errorf("%w: %s is empty", errInvalid, what)
	}
	return checkText(what, s)
}

// checkText checks a text: at most maxName bytes of UTF-8 without control characters.
func checkText(what, s string) error {
	switch {
	case len(s) > maxName:
		return fmt.Errorf("%w: %s has %d bytes, at most %d are possible", errInvalid, what, len(s), maxName)
	case !utf8.ValidString(s):
		return fmt.Errorf("%w: %s %q is not UTF-8", errInvalid, what, s)
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return fmt.Errorf("%w: %s %q has control characters", errInvalid, what, s)
		}
	}
	return nil
}

// checkMessage checks the texts and the body of a message. Headers are checked when they
// are encoded.
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
		return fmt.Errorf("%w: body has %d bytes, at most %d are possible", errInvalid, len(m.Body), l.maxBody)
	}
	return nil
}

// reasonText converts any text to one that table set_aside accepts.
func reasonText(s string) string {
	if len(s) > maxReason {
		s = s[:maxReason]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// row is a message in its stored form.
type row struct {
	message *broker.Incoming // its Headers are not used, and its Exchange only by publishOp
	headers string
}

// size is the size of the row in bytes; see rowSize.
func (r row) size() int {
	m := r.message
	return rowSize(m.RoutingKey, m.Type, m.ContentType, r.headers, m.Body)
}

// counted returns how many bytes of the row count for the quota of a peer: none if the message
// is not from a peer.
func (r row) counted() int64 {
	if r.message.Peer == "" {
		return 0
	}
	return int64(r.size())
}

// rowSize returns how many bytes a message takes, in memory or in the file, whichever is more:
// the size of its texts and body, rowOverhead, and what is unused in its overflow pages. When
// its result changes for any message, countingVersion must be increased.
func rowSize(routingKey, messageType, contentType, headers string, body []byte) int {
	return contentSize(len(routingKey) + len(messageType) + len(contentType) + len(headers) + len(body))
}

// contentSize is rowSize for a message whose texts and body have this many bytes.
func contentSize(content int) int {
	return rowOverhead + content + unusedInOverflow(content+maxRowHeader)
}

// maxRowHeader is the most that a row takes in addition to its texts and body: SQLite's record
// header, the numbers, and the peer's ID.
const maxRowHeader = 80

// unusedInOverflow returns how many bytes are unused in the overflow pages of a row of a table
// WITHOUT ROWID with this payload (SQLite's file format, 1.6): a row that is slightly too large
// for its page takes another page of its own.
func unusedInOverflow(payload int) int {
	const (
		maxLocal     = (pageSize-12)*64/255 - 23 // of the payload in the page itself
		minLocal     = (pageSize-12)*32/255 - 23
		overflowPart = pageSize - 4 // of the payload in each overflow page
	)
	if payload <= maxLocal {
		return 0
	}
	local := minLocal + (payload-minLocal)%overflowPart
	if local > maxLocal {
		local = minLocal
	}
	pages := (payload - local + overflowPart - 1) / overflowPart
	return pages*pageSize - (payload - local)
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
