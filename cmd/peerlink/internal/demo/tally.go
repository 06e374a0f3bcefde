package demo

import (
	"sort"
	"sync"
)

// tally records for each message whether the sender's broker has confirmed it, and whether it
// was delivered to the receiver's application.
type tally struct {
	mu    sync.Mutex
	count map[[2]string]*Link
	seen  map[messageKey]*fate
}

// messageKey identifies a message by its link and its content.
type messageKey struct{ from, to, about string }

// fate is the state of a message.
type fate struct{ sent, delivered bool }

func newTally() *tally {
	return &tally{count: make(map[[2]string]*Link), seen: make(map[messageKey]*fate)}
}

func (t *tally) at(k messageKey) (*Link, *fate) {
	l := t.count[[2]string{k.from, k.to}]
	if l == nil {
		l = &Link{From: k.from, To: k.to}
		t.count[[2]string{k.from, k.to}] = l
	}
	f := t.seen[k]
	if f == nil {
		f = new(fate)
		t.seen[k] = f
	}
	return l, f
}

// sent records that the sender's broker has confirmed the message.
func (t *tally) sent(k messageKey) {
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
func (t *tally) delivered(k messageKey) {
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
func (t *tally) links() []Link {
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
func (t *tally) sum() (s Link) {
	for _, l := range t.links() {
		s.Sent += l.Sent
		s.Delivered += l.Delivered
		s.Repeated += l.Repeated
		s.Lost += l.Lost
	}
	return s
}
