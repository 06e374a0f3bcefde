package local

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"

	"peerlink/broker"
	"peerlink/broker/embedded"
	"peerlink/stomp"
)

// errConnection means that a message could not be written to the client.
var errConnection = errors.New("the connection to the client has broken")

// messageWriter writes the MESSAGE frames of one subscription. Only one goroutine may
// use it. Its errors are errConnection, and stomp.ErrUnsendable for a message that does
// not fit into a frame.
type messageWriter struct {
	session *session
	sub     *subscription
	frame   stomp.Frame // reused for each message
	copies  uint64      // number of the last copy, for its message-id
	prefix  string      // of the message-ids of copies
}

func newMessageWriter(s *session, sub *subscription) *messageWriter {
	return &messageWriter{session: s, sub: sub, frame: stomp.Frame{Command: "MESSAGE"}, prefix: "copy-" + rand.Text() + "-"}
}

// write writes a message. tag is 0 if the client does not acknowledge messages.
func (w *messageWriter) write(m *embedded.InboxMessage, tag uint64) error {
	w.begin(&m.Incoming, m.ID, m.Redelivered)
	if tag > 0 {
		w.header("ack", ackID(tag, w.sub.key.name()))
	}
	return w.finish(&m.Incoming)
}

// writeCopy writes a copy of a message. missed is the number of copies dropped between the
// previous copy and this one.
func (w *messageWriter) writeCopy(m *broker.Incoming, missed uint64) error {
	w.copies++
	w.begin(m, w.prefix+strconv.FormatUint(w.copies, 10), false)
	if missed > 0 {
		w.header("missed", strconv.FormatUint(missed, 10))
	}
	return w.finish(m)
}

func (w *messageWriter) header(name, value string) {
	w.frame.Headers = append(w.frame.Headers, stomp.Header{Name: name, Value: value})
}

// begin starts a frame with the headers that messages and copies have in common.
func (w *messageWriter) begin(m *broker.Incoming, id string, redelivered bool) {
	w.frame.Headers = w.frame.Headers[:0]
	w.header("subscription", w.sub.key.name())
	w.header("message-id", id)
	w.header("destination", "/exchange/"+m.Exchange+"/"+m.RoutingKey)
	w.header("redelivered", strconv.FormatBool(redelivered))
}

// finish adds the other headers and writes the frame. The application headers come last: of a
// repeated header the first counts, so none of them replaces a header of STOMP.
func (w *messageWriter) finish(m *broker.Incoming) error {
	w.header("type", m.Type)
	w.header("content-type", m.ContentType)
	w.header("persistent", "true")
	for _, h := range m.Headers {
		w.header(h.Name, headerText(h.Value))
	}
	w.frame.Body = m.Body
	err := w.session.conn.WriteFrame(&w.frame)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, stomp.ErrUnsendable):
		return fmt.Errorf("message %s: %w", w.frame.Headers[1].Value, err)
	default:
		return fmt.Errorf("%w: %w", errConnection, err)
	}
}

// headerText returns the value of an application header as text.
func headerText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	case bool:
		return strconv.FormatBool(v)
	default:
		return fmt.Sprint(v)
	}
}
