package link

import (
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"peerlink/broker"
)

const (
	// maxRefusals is how often a message is sent to a peer that refuses it with an
	// ERROR before it becomes a dead letter.
	maxRefusals = 3
	// maxRefusedMessages is how many refused messages are remembered. One would be
	// enough if the peer refused the same message each time until that is a dead
	// letter.
	maxRefusedMessages = 32
	// maxEarly is how long a message waits that the peer refuses because of a timestamp
	// in the future, although it is not in the future by this node's clock. By then the
	// operators have been able to correct a clock.
	maxEarly = 24 * time.Hour
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
	fp         fingerprint
	count      int
	firstEarly time.Time // of the last refusals, the first that was for a timestamp in the future
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

// count returns how often a message has been refused, and whether the last refusal was
// for a timestamp in the future, which the peer has said for less than maxEarly.
func (r *refusals) count(f fingerprint, now time.Time) (n int, early bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.index(f); i >= 0 {
		return r.messages[i].count, r.messages[i].isEarly(now)
	}
	return 0, false
}

func (m *refusedMessage) isEarly(now time.Time) bool {
	return !m.firstEarly.IsZero() && now.Sub(m.firstEarly) < maxEarly
}

// add counts another refusal of a message. It returns the same as count.
func (r *refusals) add(f fingerprint, early bool, now time.Time) (int, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := refusedMessage{fp: f}
	if i := r.index(f); i >= 0 {
		m = r.messages[i]
		r.messages = slices.Delete(r.messages, i, i+1)
	}
	m.count++
	switch {
	case !early:
		m.firstEarly = time.Time{}
	case m.firstEarly.IsZero():
		m.firstEarly = now
	}
	if len(r.messages) == maxRefusedMessages {
		r.messages = slices.Delete(r.messages, 0, 1)
	}
	r.messages = append(r.messages, m)
	return m.count, m.isEarly(now)
}

// forget is called for a message that will not be sent again.
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
