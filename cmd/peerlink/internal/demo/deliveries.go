package demo

import (
	"sort"
	"sync"
)

// deliveries records for each message whether the sender's broker has confirmed it, and whether it
// was delivered to the receiver's application.
type deliveries struct {
	mu    sync.Mutex
	count map[[2]string]*Link          // by the names of sender and receiver
	seen  map[messageKey]*messageState // of all messages that were sent or delivered
}

// messageKey identifies a message by its link and its content.
type messageKey struct{ from, to, about string }

// messageState records what has happened to a message.
type messageState struct{ sent, delivered bool }

func newDeliveries() *deliveries {
	return &deliveries{count: make(map[[2]string]*Link), seen: make(map[messageKey]*messageState)}
}

// at returns the counts of the message's link, and the message's state.
func (t *deliveries) at(k messageKey) (*Link, *messageState) {
	l := t.count[[2]string{k.from, k.to}]
	if l == nil {
		l = &Link{From: k.from, To: k.to}
		t.count[[2]string{k.from, k.to}] = l
	}
	state := t.seen[k]
	if state == nil {
		state = new(messageState)
		t.seen[k] = state
	}
	return l, state
}

// sent records that the sender's broker has confirmed the message.
func (t *deliveries) sent(k messageKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l, state := t.at(k); !state.sent {
		state.sent = true
		l.Sent++
		if !state.delivered {
			l.Lost++ // until the message is delivered
		}
	}
}

// delivered records that the message was delivered to the receiver's application.
func (t *deliveries) delivered(k messageKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, state := t.at(k)
	if state.delivered {
		l.Repeated++
		return
	}
	state.delivered = true
	l.Delivered++
	if state.sent {
		l.Lost--
	}
}

// links returns the counts for each link. A message counts as lost if it was sent, but not
// delivered yet.
func (t *deliveries) links() []Link {
	t.mu.Lock()
	defer t.mu.Unlock()
	links := make([]Link, 0, len(t.count))
	for _, l := range t.count {
		links = append(links, *l)
	}
	sort.Slice(links, func(i, j int) bool {
		return links[i].From+links[i].To < links[j].From+links[j].To
	})
	return links
}

// sum returns the sum of all links.
func (t *deliveries) sum() (s Link) {
	for _, l := range t.links() {
		s.Sent += l.Sent
		s.Delivered += l.Delivered
		s.Repeated += l.Repeated
		s.Lost += l.Lost
	}
	return s
}
