package admin

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"peerlink/link"
)

// maxRows is how many peers the overview shows.
const maxRows = 200

// overviewView is the data of the overview.
type overviewView struct {
	view
	Rows   []*row
	Hidden int // peers that are not shown
	node   []sample
}

// row is a peer on a page.
type row struct {
	link.PeerStatus
	Severity  link.Severity
	Sentences []sentence // one for each direction, or one for both
	Waiting   string
	Aside     string // messages set aside at present
	AsideNow  bool   // there are some
	Chart     *chart
}

// sentence is the state of a link in one direction in words.
type sentence struct {
	Verdict   link.Verdict
	Head      string // the verdict and for how long it has held
	Direction string // "out", "in" or "both ways"
	Reason    string
	Next      string // when the next attempt begins; "" if none is planned
	Remedy    string
}

// rows returns the peers to be shown, the worst first, and how many are left out.
func (s *Server) rows(l *Links) (rows []*row, hidden int) {
	for i := range l.Peers {
		rows = append(rows, newRow(l, &l.Peers[i]))
	}
	slices.SortStableFunc(rows, func(a, b *row) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), -cmp.Compare(boolValue(a.AsideNow), boolValue(b.AsideNow)),
			cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	if len(rows) > maxRows {
		rows, hidden = rows[:maxRows], len(rows)-maxRows
	}
	for _, r := range rows {
		r.Chart = rates(s.history.of(r.ID))
	}
	return rows, hidden
}

func newRow(l *Links, p *link.PeerStatus) *row {
	r := &row{PeerStatus: *p, Severity: p.Severity(), Waiting: "–", Aside: "–"}
	if len(l.Queues) > 0 {
		q := l.QueueOf(*p)
		r.Waiting, r.Aside, r.AsideNow = fmt.Sprint(q.Messages), fmt.Sprint(q.SetAside), q.SetAside > 0
	}
	out := newSentence("out", p.Out, l.At, p.LastContact)
	in := newSentence("in", p.In, l.At, p.LastContact)
	switch {
	case out.Verdict == in.Verdict && out.Head == in.Head && out.Reason == in.Reason && out.Remedy == in.Remedy:
		out.Direction = "both ways"
		r.Sentences = []sentence{out}
	case in.Verdict.Severity() < out.Verdict.Severity():
		r.Sentences = []sentence{in, out}
	default:
		r.Sentences = []sentence{out, in}
	}
	if last := len(r.Sentences) - 1; last > 0 && r.Sentences[0].Remedy == r.Sentences[last].Remedy {
		r.Sentences[0].Remedy = "" // shown once, after both
	}
	return r
}

func newSentence(direction string, s link.LinkState, now time.Time, lastContact *time.Time) sentence {
	v := sentence{Verdict: s.Verdict, Direction: direction, Reason: s.Reason, Remedy: s.Remedy}
	s.Reason = ""
	v.Head = s.Sentence(now, lastContact)
	if s.NextAttempt != nil && s.NextAttempt.After(now) {
		v.Next = "next attempt in " + Age(s.NextAttempt.Sub(now))
	}
	return v
}

// ConfirmText returns the median time to confirm of the last minutes.
func (r *row) ConfirmText() string {
	if r.Confirm.Count == 0 {
		return "–"
	}
	return amount(r.Confirm.P50*1000) + " ms"
}

// tile is a figure about all links.
type tile struct {
	Name, Value, Note string
	Class             string // "bad" if somebody has to do something
	Chart             *chart
}

// Tiles returns the figures at the top of the overview.
func (v *overviewView) Tiles() []tile {
	var now sample
	if n := len(v.node); n > 0 {
		now = v.node[n-1]
	}
	tiles := []tile{{Name: "Messages out, in", Value: fmt.Sprintf("%s / %s per s", amount(float64(now.out)), amount(float64(now.in))), Chart: rates(v.node)}}
	if len(v.Queues) > 0 {
		tiles = append(tiles, v.waitingTile(), v.asideTile())
	}
	tiles = append(tiles, tile{Name: "Time to confirm, slowest peer", Value: amount(float64(now.p50)) + " / " + amount(float64(now.p99)) + " ms", Note: "median / 99 %", Chart: confirms(v.node)})
	if len(v.Certificates) > 0 {
		c := v.Certificates[0]
		t := tile{Name: "First certificate to end", Value: fmt.Sprintf("%d days", c.DaysLeft), Note: c.Role + " of this node"}
		if c.DaysLeft <= 7 {
			t.Class = "bad"
		}
		tiles = append(tiles, t)
	}
	return tiles
}

func (v *overviewView) waitingTile() tile {
	t := tile{Name: "Waiting to be sent", Chart: depths(v.node)}
	var n int64
	var oldest *time.Time
	for _, q := range v.peerQueues() {
		n += q.Messages
		if q.Oldest != nil && (oldest == nil || q.Oldest.Before(*oldest)) {
			oldest = q.Oldest
		}
	}
	t.Value = fmt.Sprint(n)
	if oldest != nil {
		t.Note = "oldest " + v.Ago(*oldest)
	}
	return t
}

func (v *overviewView) asideTile() tile {
	n := v.AsideTotal()
	if n == 0 {
		return tile{Name: "Set aside", Value: "0"}
	}
	return tile{Name: "Set aside", Value: fmt.Sprint(n), Note: "peerlink queue list", Class: "bad"}
}

// peerQueues returns the queues that lead to peers.
func (v *overviewView) peerQueues() (list []Queue) {
	for i := range v.Peers {
		for _, name := range v.Peers[i].Queues {
			if at := slices.IndexFunc(v.Queues, func(q Queue) bool { return q.Name == name }); at >= 0 {
				list = append(list, v.Queues[at])
			}
		}
	}
	return list
}
