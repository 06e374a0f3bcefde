package local

import (
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"strings"

	"peerlink/broker"
	"peerlink/broker/embedded"
	"peerlink/internal/logthrottle"
	"peerlink/stomp"
)

const (
	// contentType is the only content type that all peers accept.
	contentType = "application/json"

	// invalidHeader is the header of a SEND that asks what becomes of a message that could
	// never be sent to the peer, and setAside its only value.
	invalidHeader = "if-invalid"
	setAside      = "set-aside"
)

// result is what has become of the message of a SEND.
type result int

const (
	stored     result = iota // in the queue of a peer, or of several
	refused                  // answered with an ERROR
	invalid                  // set aside, because it could never be sent
	unroutable               // set aside, because there is no peer for it
	answered                 // answered in the inbox, because there is no peer for it
)

var resultNames = [...]string{stored: "stored", refused: "refused", invalid: "invalid", unroutable: "unroutable", answered: "answered"}

// Counts returns how many messages applications have sent since the door was opened, by what has
// become of them: "stored", "refused" (with an ERROR), "invalid" and "unroutable" (both set
// aside) and "answered" (in the inbox, because there is no peer).
func (d *Door) Counts() map[string]uint64 {
	counts := make(map[string]uint64, len(resultNames))
	for i, name := range resultNames {
		counts[name] = d.counts[i].Load()
	}
	return counts
}

// errNotBound is the error of a SEND whose session ends before the queues of the peers are bound.
var errNotBound = errors.New("the queues of the peers are not bound yet: the message was not stored, send it again later")

// awaitBound waits until the queues of the peers are bound. It returns errNotBound if the session
// begins to end before.
func (s *session) awaitBound() error {
	if s.door.bound == nil {
		return nil
	}
	for {
		select {
		case <-s.door.bound:
			return nil
		case <-s.slotFreed: // a change that beginOperation checks itself, or the end of the session
			if !s.running() {
				return errNotBound
			}
		}
	}
}

// send stores the message of a SEND.
func (s *session) send(f *stomp.Frame, op *operation) error {
	err := s.trySend(f, op)
	if err != nil {
		s.door.counts[refused].Add(1)
	}
	return err
}

func (s *session) trySend(f *stomp.Frame, op *operation) error {
	m, err := s.sending(f)
	if err != nil {
		return err
	}
	return s.door.store.SendOrSetAside(s.opCtx, m, func(o embedded.Outcome, err error) {
		s.door.count(&m, o, err)
		op.done(err)
	})
}

// sending returns the message of a SEND, or why it is refused.
func (s *session) sending(f *stomp.Frame) (m embedded.Sending, err error) {
	destination, err := required(f, "destination")
	if err != nil {
		return m, err
	}
	if m.Exchange, m.RoutingKey, err = s.door.destinations.parseSend(destination); err != nil {
		return m, err
	}
	if m.Outgoing, err = message(f); err != nil {
		return m, err
	}
	keep, err := keepInvalid(f)
	if err != nil {
		return m, err
	}
	if err := s.door.check(&m); err != nil {
		if !keep {
			return m, refusef("SEND to %.200s: %v", destination, err)
		}
		m.Invalid = err.Error()
	}
	m.Unroutable = s.door.unroutable
	return m, nil
}

// message returns the message of a SEND. It keeps nothing of the frame in memory but the body.
func message(f *stomp.Frame) (m broker.Outgoing, err error) {
	if m.Type, err = required(f, "type"); err != nil {
		return m, err
	}
	if m.ContentType, err = required(f, "content-type"); err != nil {
		return m, err
	}
	if !isJSON(m.ContentType) {
		return m, refusef("SEND with content-type %.100q: expected %s", m.ContentType, contentType)
	}
	m.Type = strings.Clone(m.Type) // the clone does not keep the frame's other headers in memory
	m.ContentType, m.Body = contentType, f.Body
	return m, nil
}

// isJSON reports whether a content type, perhaps with parameters, is that of JSON in UTF-8.
func isJSON(s string) bool {
	if s == contentType {
		return true
	}
	media, parameters, err := mime.ParseMediaType(s)
	charset, ok := parameters["charset"]
	return err == nil && media == contentType && (!ok || strings.EqualFold(charset, "utf-8"))
}

// keepInvalid reports whether the message of a SEND is to be set aside if it could never be sent.
func keepInvalid(f *stomp.Frame) (bool, error) {
	value, ok := f.Get(invalidHeader)
	if ok && value != setAside {
		return false, refusef("SEND with %s %.40q: expected %s", invalidHeader, value, setAside)
	}
	return ok, nil
}

// check returns an error if a message can never be sent to the peer.
func (d *Door) check(m *embedded.Sending) error {
	if d.messages == nil {
		return nil
	}
	return d.messages.Check(m.Exchange, m.RoutingKey, &m.Outgoing)
}

// count counts a message when it is known what has become of it, and logs what an operator should
// know of.
func (d *Door) count(m *embedded.Sending, o embedded.Outcome, err error) {
	r := stored
	switch {
	case err != nil:
		r = refused
	case o == embedded.Answered:
		r = answered
	case o == embedded.SetAside && m.Invalid != "":
		r = invalid
		d.logSetAside("message of an application set aside: it could never be sent", m, "err", m.Invalid)
	case o == embedded.SetAside:
		r = unroutable
		d.logSetAside("message of an application set aside: no active peer's range contains its routing key", m)
	}
	d.counts[r].Add(1)
}

func (d *Door) logSetAside(text string, m *embedded.Sending, args ...any) {
	args = append(args, "type", m.Type, "destination", fmt.Sprintf("/exchange/%s/%s", m.Exchange, m.RoutingKey))
	d.logLimiter.Log(d.log, slog.LevelWarn, logthrottle.Key{Kind: text}, text, args...)
}
