package local

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"peerlink/internal/wait"
)

// AckMode says what acknowledges a message of a subscription (STOMP 1.2,
// "SUBSCRIBE").
type AckMode string

const (
	AckAuto       AckMode = "auto"              // nothing need: it is removed when it was sent
	AckClient     AckMode = "client"            // its ACK, or that of a later one
	AckIndividual AckMode = "client-individual" // its ACK
)

func (m AckMode) valid() bool {
	return m == AckAuto || m == AckClient || m == AckIndividual
}

// ledger knows which messages a client holds by one subscription. Each
// delivery has a tag, which grows, and is never used twice on a connection: so
// an ACK for a message that was given back does not count for its next
// delivery.
type ledger struct {
	prefetch int
	freed    wait.Signal // rung when used has shrunk

	mu   sync.Mutex
	used int    // part of prefetch: messages given out, until they are removed or given back
	held []held // those that the client can acknowledge, with growing tags
}

type held struct{ tag, seq uint64 }

func newLedger(prefetch int) *ledger {
	return &ledger{prefetch: prefetch, freed: wait.NewSignal()}
}

// space is how many more messages may be given out.
func (l *ledger) space() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.prefetch - l.used
}

// use counts messages as given out.
func (l *ledger) use(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used += n
}

// free is the opposite of use.
func (l *ledger) free(n int) {
	l.mu.Lock()
	l.used -= n
	l.mu.Unlock()
	l.freed.Notify()
}

// hold lets the client acknowledge a message. Tags must grow.
func (l *ledger) hold(tag, seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = append(l.held, held{tag, seq})
}

// settle takes a message off the ledger, and all those before it if cumulative.
// It returns their sequence numbers, none if the message is not held. They are
// used until free is called.
func (l *ledger) settle(tag uint64, cumulative bool) []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	last, ok := slices.BinarySearchFunc(l.held, tag, func(h held, tag uint64) int { return cmp.Compare(h.tag, tag) })
	if !ok {
		return nil
	}
	first := last
	if cumulative {
		first = 0
	}
	seqs := make([]uint64, 0, last+1-first)
	for _, h := range l.held[first : last+1] {
		seqs = append(seqs, h.seq)
	}
	if first == 0 {
		l.held = l.held[last+1:] // most clients acknowledge in order: nothing to move
	} else {
		l.held = slices.Delete(l.held, first, last+1)
	}
	return seqs
}

// ackID is the value of the ack header, by which the client acknowledges a
// delivery.
func ackID(tag uint64, subscription string) string {
	return strconv.FormatUint(tag, 10) + "@" + subscription
}

func parseAckID(s string) (tag uint64, subscription string, ok bool) {
	number, subscription, ok := strings.Cut(s, "@")
	tag, err := strconv.ParseUint(number, 10, 64)
	return tag, subscription, ok && err == nil
}
