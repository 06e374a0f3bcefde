//go:build linux

package faulttest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// schedule picks faults.
type schedule struct {
	world  *world
	random *rand.Rand
	kinds  []kind        // those that some node can have
	last   time.Duration // how long faults last at most

	stretches bool // some last longer
}

// schedule makes one. The environment may choose some kinds, to look into them:
// FAULTS="kill,full disk".
func (w *world) schedule(seed uint64, last time.Duration, stretches bool) *schedule {
	s := &schedule{world: w, random: rand.New(rand.NewPCG(seed, 0)), last: last, stretches: stretches}
	only := strings.FieldsFunc(os.Getenv("FAULTS"), func(r rune) bool { return r == ',' })
	for _, k := range kinds {
		if len(only) > 0 && !slices.Contains(only, k.name) {
			continue
		}
		if slices.ContainsFunc(w.members, func(m *member) bool { return k.fits == nil || k.fits(m) }) {
			s.kinds = append(s.kinds, k)
		}
	}
	if len(s.kinds) == 0 {
		w.t.Fatalf("FAULTS names no kind of fault that these nodes can have: %q", only)
	}
	return s
}

// plan picks a node, the time and the duration for a fault.
func (s *schedule) plan(k kind) *fault {
	var able []*member
	for _, m := range s.world.members {
		if k.fits == nil || k.fits(m) {
			able = append(able, m)
		}
	}
	return &fault{
		kind: k, world: s.world, node: able[s.random.IntN(len(able))],
		after:  s.time(),
		last:   s.time() * s.stretch(),
		random: rand.New(rand.NewPCG(s.random.Uint64(), 0)),
	}
}

// time picks a duration.
func (s *schedule) time() time.Duration {
	return time.Duration(s.random.Int64N(int64(s.last))).Round(time.Millisecond)
}

// stretch makes some faults outlast every limit of time that the nodes have.
func (s *schedule) stretch() time.Duration {
	if s.stretches && s.random.IntN(8) == 0 {
		return 8
	}
	return 1
}

// each returns rounds in which every kind comes once, in random order, two
// at a time where they do not concern the same.
func (s *schedule) each() [][]*fault {
	var rounds [][]*fault
	for _, i := range s.random.Perm(len(s.kinds)) {
		f := s.plan(s.kinds[i])
		if n := len(rounds) - 1; n >= 0 && len(rounds[n]) == 1 && !clash(rounds[n], f) {
			rounds[n] = append(rounds[n], f)
			continue
		}
		rounds = append(rounds, []*fault{f})
	}
	return rounds
}

// some returns a round of one to three faults.
func (s *schedule) some() []*fault {
	var round []*fault
	for range 1 + s.random.IntN(3) {
		if f := s.plan(s.kinds[s.random.IntN(len(s.kinds))]); !clash(round, f) {
			round = append(round, f)
		}
	}
	return round
}

// clash tells whether a fault concerns what one of the round does.
func clash(round []*fault, f *fault) bool {
	return slices.ContainsFunc(round, func(g *fault) bool { return g.node == f.node && g.on == f.on })
}

// round lets faults happen, and waits until messages go all ways again. It
// returns false if they do not within the bound.
func (w *world) round(faults []*fault) bool {
	var running sync.WaitGroup
	for _, f := range faults {
		running.Go(func() {
			time.Sleep(f.after)
			f.do(f)
		})
	}
	running.Wait()

	end := time.Now()
	waiting := make(map[*direction]int)
	for _, d := range w.directions {
		waiting[d] = d.ledger.mark()
	}
	last := ""
	ok := w.within(bound, func() bool {
		for d, mark := range waiting {
			if d.ledger.passed(mark) {
				delete(waiting, d)
				last = d.name
			}
		}
		return len(waiting) == 0
	})
	w.report.round(faults, last, time.Since(end))
	if !ok {
		w.t.Errorf("%s", w.stuck(faults, waiting))
	}
	return ok
}

// stuck describes a standstill that did not end.
func (w *world) stuck(faults []*fault, waiting map[*direction]int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "nothing has moved for %v after %v:\n", bound, faults)
	for d, mark := range waiting {
		fmt.Fprintf(&b, "%s waits for message %d, %+v\n", d.name, mark, d.ledger.sum())
	}
	for _, m := range w.members {
		fmt.Fprintf(&b, "--- log of %s\n%s", m.name, m.process.log)
	}
	return b.String()
}
