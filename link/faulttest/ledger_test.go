//go:build linux

package faulttest

import "sync"

// ledger knows what has become of the messages of one direction, by their
// numbers. It needs two bytes for each.
type ledger struct {
	mu       sync.Mutex
	accepted []bool // the sender's broker has said that it holds it
	arrived  []bool
	again    []int // numbers whose fate the broker has not told
	highest  int   // the highest number that has arrived; -1 at the beginning
	damaged  []string
	sent     map[int]bool // numbers that have been sent, of which the broker has said nothing yet
	poisons  int          // as many poisonous messages

	figures
}

// figures sum up a ledger.
type figures struct {
	Accepted  int `json:"accepted"`  // messages that the sender's broker holds, or held
	Delivered int `json:"delivered"` // distinct messages that have arrived
	Repeated  int `json:"repeated"`  // further arrivals of them
	Lost      int `json:"lost"`      // accepted and not arrived, yet or ever
	Damaged   int `json:"damaged"`   // arrivals that were not as sent
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

func newLedger() *ledger { return &ledger{highest: -1, sent: make(map[int]bool)} }

// next gives the number of the next message to be sent: one that may not have
// been accepted, or a new one, unless too many are on their way already.
func (l *ledger) next(most int) (n int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.again) > 0 {
		n, l.again = l.again[0], l.again[1:]
		l.sent[n] = true
		return n, true
	}
	if len(l.accepted)-l.Delivered >= most {
		return 0, false
	}
	l.accepted = append(l.accepted, false)
	l.arrived = append(l.arrived, false)
	l.sent[len(l.accepted)-1] = true
	return len(l.accepted) - 1, true
}

// settle notes whether the sender's broker has accepted a message.
func (l *ledger) settle(n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.sent, n)
	switch {
	case err != nil:
		l.again = append(l.again, n)
	case !l.accepted[n]:
		l.accepted[n] = true
		l.Accepted++
		if !l.arrived[n] {
			l.Lost++
		}
	}
}

// settlePoison is settle for a message that must not arrive, and is sent once.
func (l *ledger) settlePoison(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.poisons = max(0, l.poisons-1)
	if err == nil {
		l.Poison++
	}
}

// nextPoison notes that such a message is being sent.
func (l *ledger) nextPoison() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.poisons++
}

// forgetPoison notes that those that were set aside are gone, with all that their
// broker held.
func (l *ledger) forgetPoison() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Poison = 0
}

// idle reports whether no message is on its way, nor the broker's word on one.
func (l *ledger) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Lost == 0 && len(l.sent) == 0 && l.poisons == 0
}

// arrive notes that a message has come, or that what has come is not what was
// sent.
func (l *ledger) arrive(n int, damage string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if damage == "" && n >= len(l.arrived) {
		damage = "it has a number that was never given"
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

// mark returns the lowest number that has not been given to a message.
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

// sum returns the figures of now.
func (l *ledger) sum() figures {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.figures
}
