package local

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"peerlink/internal/sorted"
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
//
// Any number of calls of add and remove, in any order, takes time proportional to the
// number of messages (with a logarithm, for the search): a removed message is only marked, and
// marked ones are dropped when they are the majority.
type unacked struct {
	prefetch int
	freed    wait.Signal // notified when used has decreased

	mu    sync.Mutex
	used  int               // messages delivered that count against prefetch, until free is called; at most prefetch
	held  []held            // messages that the client can acknowledge, with growing tags, and removed ones
	first int               // all messages before this index are removed
	live  int               // how many of held are not removed
	byID  map[string]uint64 // for named: the tags of those that are not removed; nil until it is needed
}

// held is a delivered message that is not acknowledged.
type held struct {
	tag, seq uint64
	id       string // message-id; empty if removed
	removed  bool
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
	u.count(h)
}

// count counts a message as held again, or for the first time.
func (u *unacked) count(h held) {
	u.live++
	if u.byID != nil {
		u.byID[h.id] = h.tag
	}
}

// find returns the index of a message in u.held, which is not removed; ok is false if it is not
// there. The caller of it holds u.mu.
type find func(u *unacked) (i int, ok bool)

// tagged finds a message by its tag.
func tagged(tag uint64) find {
	return func(u *unacked) (int, bool) {
		i, ok := slices.BinarySearchFunc(u.held, held{tag: tag}, byTag)
		return i, ok && !u.held[i].removed
	}
}

func byTag(a, b held) int { return cmp.Compare(a.tag, b.tag) }

// named finds a message by its message-id. A client that acknowledges in order finds it at the
// beginning; for one that does not, an index is made.
func named(id string) find {
	return func(u *unacked) (int, bool) {
		if u.first < len(u.held) && u.held[u.first].id == id {
			return u.first, !u.held[u.first].removed
		}
		if u.byID == nil {
			u.byID = make(map[string]uint64, u.live)
			for _, h := range u.held {
				if !h.removed {
					u.byID[h.id] = h.tag
				}
			}
		}
		tag, ok := u.byID[id]
		if !ok {
			return 0, false
		}
		return tagged(tag)(u)
	}
}

// remove removes a message and, if cumulative, all messages before it. It returns them, or none
// if the message is not held. The messages stay counted in used until free is called.
func (u *unacked) remove(message find, cumulative bool) (removed []held) {
	u.mu.Lock()
	defer u.mu.Unlock()
	last, ok := message(u)
	if !ok {
		return nil
	}
	first := last
	if cumulative {
		first = u.first
	}
	for i := first; i <= last; i++ {
		h := &u.held[i]
		if h.removed {
			continue
		}
		removed = append(removed, *h)
		delete(u.byID, h.id)
		h.removed, h.id = true, ""
		u.live--
	}
	for u.first < len(u.held) && u.held[u.first].removed {
		u.first++
	}
	if len(u.held) > 2*u.live+maxRemoved {
		u.compact()
	}
	return removed
}

// maxRemoved is how many removed messages u.held may have beside as many as there are others.
const maxRemoved = 64

// compact drops the removed messages from u.held, and the memory for them.
func (u *unacked) compact() {
	list := make([]held, 0, u.live+maxRemoved)
	for _, h := range u.held[u.first:] {
		if !h.removed {
			list = append(list, h)
		}
	}
	u.held, u.first = list, 0
}

// restore undoes remove, of any number of calls. It takes time proportional to the number of
// messages restored, and to that of all held ones if some of those restored are dropped from u.held.
func (u *unacked) restore(messages []held) {
	u.mu.Lock()
	defer u.mu.Unlock()
	dropped := []held{}
	for _, h := range messages {
		u.count(h)
		i, ok := slices.BinarySearchFunc(u.held, h, byTag)
		if !ok {
			dropped = append(dropped, h)
			continue
		}
		u.held[i] = h
		u.first = min(u.first, i)
	}
	if len(dropped) > 0 {
		slices.SortFunc(dropped, byTag)
		u.held, u.first = sorted.Merge(u.held[u.first:], dropped, byTag), 0
	}
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
