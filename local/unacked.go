package local

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"peerlink/internal/wait"
)

// AckMode specifies how the messages of a subscription are acknowledged (STOMP 1.2,
// "SUBSCRIBE").
type AckMode string

const (
	AckAuto       AckMode = "auto"              // without ACK, when the message has been sent
	AckClient     AckMode = "client"            // by the ACK of the message or of a later one of the subscription
	AckIndividual AckMode = "client-individual" // by the ACK of the message
)

func (m AckMode) valid() bool {
	return m == AckAuto || m == AckClient || m == AckIndividual
}

// unacked holds the unacknowledged messages of one subscription. Each delivery has a
// tag; tags grow and are never reused on a connection, so that an ACK for a message
// that was returned to the inbox does not apply to its next delivery.
type unacked struct {
	prefetch int
	freed    wait.Signal // notified when used has decreased

	mu   sync.Mutex
	used int    // messages delivered that count against prefetch, until free is called; at most prefetch
	held []held // messages that the client can acknowledge, with growing tags
}

// held is a delivered message that is not acknowledged.
type held struct {
	tag, seq uint64
	id       string // message-id
}

func newUnacked(prefetch int) *unacked {
	return &unacked{prefetch: prefetch, freed: wait.NewSignal()}
}

// space returns how many more messages may be delivered.
func (u *unacked) space() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.prefetch - u.used
}

// use counts n more messages as delivered.
func (u *unacked) use(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.used += n
}

// free makes n messages no longer count against the prefetch-count: the client has acknowledged
// them, or they are removed from the inbox, returned to it, or cannot be delivered.
func (u *unacked) free(n int) {
	u.mu.Lock()
	u.used -= n
	u.mu.Unlock()
	u.freed.Notify()
}

// add adds a message that the client can acknowledge. Tags must grow.
func (u *unacked) add(h held) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.held = append(u.held, h)
}

// find returns the index of a message among those that are held, which have growing tags; ok is
// false if it is not there.
type find func([]held) (i int, ok bool)

// tagged finds a message by its tag.
func tagged(tag uint64) find {
	return func(list []held) (int, bool) {
		return slices.BinarySearchFunc(list, held{tag: tag}, byTag)
	}
}

func byTag(a, b held) int { return cmp.Compare(a.tag, b.tag) }

// named finds a message by its message-id. A client that acknowledges in order finds it at the
// beginning.
func named(id string) find {
	return func(list []held) (int, bool) {
		i := slices.IndexFunc(list, func(h held) bool { return h.id == id })
		return i, i >= 0
	}
}

// remove removes a message and, if cumulative, all messages before it. It returns them, or none
// if the message is not held. The messages stay counted in used until free is called.
func (u *unacked) remove(message find, cumulative bool) []held {
	u.mu.Lock()
	defer u.mu.Unlock()
	last, ok := message(u.held)
	if !ok {
		return nil
	}
	first := last
	if cumulative {
		first = 0
	}
	removed := slices.Clone(u.held[first : last+1])
	if first == 0 {
		u.held = u.held[last+1:] // nothing is moved for clients that acknowledge in order, which is the usual case
	} else {
		u.held = slices.Delete(u.held, first, last+1)
	}
	return removed
}

// ackID returns the value of the ack header, with which the client acknowledges a
// delivery.
func ackID(tag uint64, subscription string) string {
	return strconv.FormatUint(tag, 10) + "@" + subscription
}

func parseAckID(s string) (tag uint64, subscription string, ok bool) {
	number, subscription, ok := strings.Cut(s, "@")
	tag, err := strconv.ParseUint(number, 10, 64)
	return tag, subscription, ok && err == nil
}
