package link

import (
	"hash/maphash"
	"slices"
	"sync"

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
	fp    fingerprint
	count int
	early bool // the last refusal was for a timestamp in the future
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
// for a timestamp in the future.
func (r *refusals) count(f fingerprint) (n int, early bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.countLocked(f)
}

func (r *refusals) countLocked(f fingerprint) (n int, early bool) {
	if i := r.index(f); i >= 0 {
		return r.messages[i].count, r.messages[i].early
	}
	return 0, false
}

// add counts another refusal of a message, and returns the new count.
func (r *refusals) add(f fingerprint, early bool) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, _ := r.countLocked(f)
	n++
	r.forgetLocked(f)
	if len(r.messages) == maxRefusedMessages {
		r.messages = slices.Delete(r.messages, 0, 1)
	}
	r.messages = append(r.messages, refusedMessage{f, n, early})
	return n
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
