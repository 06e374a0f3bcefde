package link

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"regexp"
	"slices"
	"sync"
	"time"

	"peerlink/broker"
	"peerlink/internal/wait"
	"peerlink/stomp"
)

const (
	// maxRefusals is how often a message is sent to a peer that refuses it with an
	// ERROR before it becomes a dead letter.
	maxRefusals = 3
	// maxRefusedMessages is how many refused messages are recorded. One would be enough
	// if the peer refused the same message each time until the message is a dead letter.
	maxRefusedMessages = 32
	// maxClockSkewWait is how long a message stays in its queue if the peer refuses it
	// because of a timestamp in the future that is not in the future by this node's
	// clock. In that time the operators can correct a clock.
	maxClockSkewWait = 24 * time.Hour
)

// refusals counts how often the peer has refused each message. Messages are identified
// by their content: a broker may give the same message another tag each time. The
// methods are safe for concurrent use.
type refusals struct {
	seed maphash.Seed

	mu       sync.Mutex
	messages []refusedMessage // in the order of their last refusal
}

type refusedMessage struct {
	fp        fingerprint
	count     int
	skewSince time.Time // when the peer began to refuse the message for a timestamp in the future; zero if the last refusal had another reason
}

// fingerprint is a hash of the type and the body of a message.
type fingerprint uint64

func newRefusals() *refusals { return &refusals{seed: maphash.MakeSeed()} }

// fingerprint returns the fingerprint of a message.
func (r *refusals) fingerprint(m *broker.Outgoing) fingerprint {
	var h maphash.Hash
	h.SetSeed(r.seed)
	h.WriteString(m.Type)
	h.WriteByte(0)
	h.Write(m.Body)
	return fingerprint(h.Sum64())
}

// count returns how often a message has been refused. clockSkew reports whether the
// reason may be that two clocks differ: the peer refuses the message for a timestamp in
// the future, and has done so for less than maxClockSkewWait.
func (r *refusals) count(f fingerprint, now time.Time) (n int, clockSkew bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.index(f); i >= 0 {
		return r.messages[i].count, r.messages[i].mayBeClockSkew(now)
	}
	return 0, false
}

func (m *refusedMessage) mayBeClockSkew(now time.Time) bool {
	return !m.skewSince.IsZero() && now.Sub(m.skewSince) < maxClockSkewWait
}

// add counts another refusal of a message, and whether it was for a timestamp in the
// future. It returns the same as count.
func (r *refusals) add(f fingerprint, futureTimestamp bool, now time.Time) (n int, clockSkew bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := refusedMessage{fp: f}
	if i := r.index(f); i >= 0 {
		m = r.messages[i]
		r.messages = slices.Delete(r.messages, i, i+1)
	}
	m.count++
	switch {
	case !futureTimestamp:
		m.skewSince = time.Time{}
	case m.skewSince.IsZero():
		m.skewSince = now
	}
	if len(r.messages) == maxRefusedMessages {
		r.messages = slices.Delete(r.messages, 0, 1)
	}
	r.messages = append(r.messages, m)
	return m.count, m.mayBeClockSkew(now)
}

// forget removes the count of a message that will not be sent again.
func (r *refusals) forget(f fingerprint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetLocked(f)
}

func (r *refusals) forgetLocked(f fingerprint) {
	if i := r.index(f); i >= 0 {
		r.messages = slices.Delete(r.messages, i, i+1)
	}
}

func (r *refusals) index(f fingerprint) int {
	return slices.IndexFunc(r.messages, func(s refusedMessage) bool { return s.fp == f })
}

// A peer may answer a message with an ERROR that does not identify the message. The
// unconfirmed messages are then sent again one at a time, the first of them when the next
// connection has been open for quietTime. If there is an ERROR again, it refers to the
// only unconfirmed message, and not to the connection. It counts like an ERROR that
// identifies the message, with one difference: the peer may have a fault that is
// unrelated to the message, because of which it refuses the next messages as well, and
// these must not all become dead letters.

// quietTime is how long a session must have been open, without an ERROR, before its first
// message is sent, so that an ERROR may be attributed to the message.
const quietTime = time.Second

// The pauses between two dead letters due to ERRORs that identify no message grow from
// firstUnidentifiedPause to lastUnidentifiedPause, as long as the peer confirms nothing.
const (
	firstUnidentifiedPause = time.Hour
	lastUnidentifiedPause  = 24 * time.Hour
)

// unidentifiedErrors decides whether an ERROR may count against a message that it does not
// identify.
type unidentifiedErrors struct {
	last  time.Time     // when a message last became a dead letter because of such an ERROR
	pause time.Duration // until another message may become one
}

// mayCount reports whether the pause since the last dead letter is over.
func (u *unidentifiedErrors) mayCount(now time.Time) bool { return now.Sub(u.last) >= u.pause }

// recordDeadLetter starts the pause until the next dead letter.
func (u *unidentifiedErrors) recordDeadLetter(now time.Time) {
	u.last, u.pause = now, min(max(2*u.pause, firstUnidentifiedPause), lastUnidentifiedPause)
}

// refusedBy returns the message that an ERROR counts against. found is false if there
// is none, as for an ERROR about the connection, whatever it answers. If the ERROR does not identify a message, and is no internal error of the peer,
// refusedBy makes the next session send the unconfirmed messages one at a time.
func (se *session) refusedBy(refused *stomp.ServerError) (m sentMessage, found bool) {
	se.mu.Lock()
	defer se.mu.Unlock()
	if isAboutConnection(refused) {
		return sentMessage{}, false
	}
	if refused.MessageNumber > 0 {
		return se.sent.get(refused.MessageNumber)
	}
	switch {
	case len(se.sent.items) == 0 || isInternalError(refused):
		return sentMessage{}, false
	case len(se.sent.items) > 1 || !se.firstDelayed:
		se.sender.leftToSendSingly = len(se.sent.items)
		se.sender.logThrottled(se.log, slog.LevelWarn, "the peer has answered with an ERROR that names no message: the unconfirmed messages are sent again one at a time", "err", refused.Message, "messages", len(se.sent.items))
		return sentMessage{}, false
	}
	se.sender.leftToSendSingly = max(se.sender.leftToSendSingly, 1)
	return se.sent.items[0], se.sender.unidentified.mayCount(time.Now())
}

// delayFirst waits for quietTime before the first message of a connection, if messages
// are sent one at a time.
func (se *session) delayFirst(ctx context.Context) error {
	if se.sender.leftToSendSingly == 0 || se.firstDelayed {
		return nil
	}
	se.firstDelayed = true
	return wait.Sleep(ctx, quietTime)
}

// STOMP has no codes for errors. The texts below are those of our own nodes and of the
// reference implementation. The whole text has to match: errors quote what this node has
// sent, so a part of an error may come from an application. If a peer uses other words,
// its errors count like any other error.
var (
	fromFutureText  = regexp.MustCompile(`^(invalid \w+: ts is \d+ seconds in the future, at most \d+ are allowed|The message timestamp is \d+ seconds in the future\.)$`)
	tooManyText     = regexp.MustCompile(`^Too many connections from one peer\.$`)
	internalErrText = regexp.MustCompile(`^Internal server error\.$`)
)

// isFromFuture reports whether a peer has refused a message for a timestamp in the
// future.
func isFromFuture(refused *stomp.ServerError) bool {
	return fromFutureText.MatchString(refused.Message)
}

// isTooManyConnections reports whether a peer has rejected a connection because it has
// too many from this node.
func isTooManyConnections(err error) bool {
	refused := new(stomp.ServerError)
	return errors.As(err, &refused) && tooManyText.MatchString(refused.Message)
}

// isAboutConnection reports whether an ERROR means that the peer does not want this connection, or
// any: no message can be the reason.
func isAboutConnection(refused *stomp.ServerError) bool {
	for _, text := range []*regexp.Regexp{tooManyText, unknownPeerText, notRegisteredText, suspendedText, noActiveLinkText} {
		if text.MatchString(refused.Message) {
			return true
		}
	}
	return false
}

// isInternalError reports whether an ERROR means that the peer itself has a fault.
func isInternalError(refused *stomp.ServerError) bool {
	return internalErrText.MatchString(refused.Message)
}
