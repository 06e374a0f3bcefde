//go:build linux

package faulttest

import "sync"

// ledger records the state of the messages of one direction, by their numbers. It needs
// two bytes for each.
type ledger struct {
	mu            sync.Mutex
	accepted      []bool // accepted by the sender's broker
	arrived       []bool
	resend        []int // numbers of messages whose acceptance is unknown, which are sent again
	highest       int   // the highest number that has arrived; -1 before the first
	damaged       []string
	pending       map[int]bool // numbers of messages that the broker has not answered yet
	pendingPoison int          // number of poison messages that the broker has not answered yet

	figures
}

// figures are the totals of a ledger.
type figures struct {
	Accepted  int `json:"accepted"`  // messages that the sender's broker has accepted
	Delivered int `json:"delivered"` // distinct messages that have arrived
	Repeated  int `json:"repeated"`  // further arrivals of these
	Lost      int `json:"lost"`      // accepted and not arrived
	Damaged   int `json:"damaged"`   // arrivals with another content
	Poison    int `json:"poison"`    // accepted messages that must not arrive
}

func (f *figures) add(g figures) {
	f.Accepted += g.Accepted
	f.Delivered += g.Delivered
	f.Repeated += g.Repeated
	f.Lost += g.Lost
	f.Damaged += g.Damaged
	f.Poison += g.Poison
}

func newLedger() *ledger { return &ledger{highest: -1, pending: make(map[int]bool)} }

// next returns the number of the next message to send: one whose acceptance is unknown,
// or a new one, unless too many are in flight.
func (l *ledger) next(maxInFlight int) (n int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.resend) > 0 {
		n, l.resend = l.resend[0], l.resend[1:]
		l.pending[n] = true
		return n, true
	}
	if len(l.accepted)-l.Delivered >= maxInFlight {
		return 0, false
	}
	l.accepted = append(l.accepted, false)
	l.arrived = append(l.arrived, false)
	l.pending[len(l.accepted)-1] = true
	return len(l.accepted) - 1, true
}

// settle records whether the sender's broker has accepted a message.
func (l *ledger) settle(n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pending, n)
	switch {
	case err != nil:
		l.resend = append(l.resend, n)
	case !l.accepted[n]:
		l.accepted[n] = true
		l.Accepted++
		if !l.arrived[n] {
			l.Lost++
		}
	}
}

// settlePoison records whether the sender's broker has accepted a message that must
// not arrive. Such a message is sent only once.
func (l *ledger) settlePoison(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pendingPoison = max(0, l.pendingPoison-1)
	if err == nil {
		l.Poison++
	}
}

// nextPoison records that a message that must not arrive is being sent.
func (l *ledger) nextPoison() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pendingPoison++
}

// forgetPoison records that all dead letters are gone, together with the data of their
// broker.
func (l *ledger) forgetPoison() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Poison = 0
}

// idle reports whether no message, and no answer of the broker, is outstanding.
func (l *ledger) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Lost == 0 && len(l.pending) == 0 && l.pendingPoison == 0
}

// arrive records that a message has arrived; damage describes how its content differs
// from what was sent.
func (l *ledger) arrive(n int, damage string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if damage == "" && n >= len(l.arrived) {
		damage = "it has a number that was never assigned"
	}
	switch {
	case damage != "":
		l.Damaged++
		l.damaged = append(l.damaged[:min(len(l.damaged), 9)], damage)
	case l.arrived[n]:
		l.Repeated++
	default:
		l.arrived[n] = true
		l.Delivered++
		l.highest = max(l.highest, n)
		if l.accepted[n] {
			l.Lost--
		}
	}
}

// mark returns the lowest unused message number.
func (l *ledger) mark() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.accepted)
}

// passed reports whether a message with this number or a higher one has arrived.
func (l *ledger) passed(mark int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.highest >= mark
}

// sum returns the current figures.
func (l *ledger) sum() figures {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.figures
}
