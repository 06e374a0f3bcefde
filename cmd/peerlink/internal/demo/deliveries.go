package demo

import (
	"sort"
	"sync"
)

// deliveries records for each message whether the sender's broker has confirmed it, and whether it
// was delivered to the receiver's application.
type deliveries struct {
	mu    sync.Mutex
	count map[[2]string]*Link
	seen  map[messageKey]*messageState
}

// messageKey identifies a message by its link and its content.
type messageKey struct{ from, to, about string }

// messageState is how far a message has come.
type messageState struct{ sent, delivered bool }

func newDeliveries() *deliveries {
	return &deliveries{count: make(map[[2]string]*Link), seen: make(map[messageKey]*messageState)}
}

func (t *deliveries) at(k messageKey) (*Link, *messageState) {
	l := t.count[[2]string{k.from, k.to}]
	if l == nil {
		l = &Link{From: k.from, To: k.to}
		t.count[[2]string{k.from, k.to}] = l
	}
	f := t.seen[k]
	if f == nil {
		f = new(messageState)
		t.seen[k] = f
	}
	return l, f
}

// sent records that the sender's broker has confirmed the message.
func (t *deliveries) sent(k messageKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l, f := t.at(k); !f.sent {
		f.sent = true
		l.Sent++
		if !f.delivered {
			l.Lost++ // until the message is delivered
		}
	}
}

// delivered records that the message was delivered to the receiver's application.
func (t *deliveries) delivered(k messageKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, f := t.at(k)
	if f.delivered {
		l.Repeated++
		return
	}
	f.delivered = true
	l.Delivered++
	if f.sent {
		l.Lost--
	}
}

// links returns the counts for each link. A message is lost if it was sent, but not delivered.
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
