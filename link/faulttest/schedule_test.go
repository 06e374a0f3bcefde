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
	world       *world
	random      *rand.Rand
	kinds       []kind        // the kinds that are possible on some node
	maxDuration time.Duration // of faults, before stretching

	stretches bool // whether some faults last longer
}

// schedule returns a schedule. The environment may select some kinds, to investigate
// them: FAULTS="kill,full disk".
func (w *world) schedule(seed uint64, maxDuration time.Duration, stretches bool) *schedule {
	s := &schedule{world: w, random: rand.New(rand.NewPCG(seed, 0)), maxDuration: maxDuration, stretches: stretches}
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
	var candidates []*member
	for _, m := range s.world.members {
		if k.fits == nil || k.fits(m) {
			candidates = append(candidates, m)
		}
	}
	return &fault{
		kind: k, world: s.world, node: candidates[s.random.IntN(len(candidates))],
		after:    s.time(),
		duration: s.time() * s.stretch(),
		random:   rand.New(rand.NewPCG(s.random.Uint64(), 0)),
	}
}

// time picks a time between 0 and the maximum duration.
func (s *schedule) time() time.Duration {
	return time.Duration(s.random.Int64N(int64(s.maxDuration))).Round(time.Millisecond)
}

// stretch returns a factor that makes some faults outlast every timeout of the nodes.
func (s *schedule) stretch() time.Duration {
	if s.stretches && s.random.IntN(8) == 0 {
		return 8
	}
	return 1
}

// round is a set of faults that happen at the same time.
type round struct {
	faults []*fault
	// quiet is the time, since the beginning of the round, at which the applications
	// stop sending until all sent messages have arrived: a failed link must recover
	// without new messages. 0: they do not stop.
	quiet time.Duration
}

// each returns rounds in which every kind happens once, in random order, two at a time
// if they do not affect the same part. Every other round is quiet.
func (s *schedule) each() []round {
	var rounds []round
	for _, i := range s.random.Perm(len(s.kinds)) {
		f := s.plan(s.kinds[i])
		if n := len(rounds) - 1; n >= 0 && len(rounds[n].faults) == 1 && !clash(rounds[n].faults, f) {
			rounds[n].faults = append(rounds[n].faults, f)
			continue
		}
		rounds = append(rounds, round{faults: []*fault{f}})
	}
	for i := range rounds {
		if i%2 == 1 {
			rounds[i].quiet = s.quiet(rounds[i].faults)
		}
	}
	return rounds
}

// quiet picks the time at which the applications stop sending: any time, or the moment
// when a fault begins, so that the messages in flight then are the last ones.
func (s *schedule) quiet(faults []*fault) time.Duration {
	if s.random.IntN(2) == 0 {
		return s.time()
	}
	moment := time.Duration(s.random.Int64N(int64(time.Second / bursts)))
	return faults[s.random.IntN(len(faults))].after + moment
}

// some returns a round of one to three faults. One in four is quiet.
func (s *schedule) some() round {
	var r round
	for range 1 + s.random.IntN(3) {
		if f := s.plan(s.kinds[s.random.IntN(len(s.kinds))]); !clash(r.faults, f) {
			r.faults = append(r.faults, f)
		}
	}
	if s.random.IntN(4) == 0 {
		r.quiet = s.quiet(r.faults)
	}
	return r
}

// clash reports whether a fault affects the same part as one of the others.
func clash(faults []*fault, f *fault) bool {
	return slices.ContainsFunc(faults, func(g *fault) bool { return g.node == f.node && g.on == f.on })
}

// round executes a round, while messages must be delivered between nodes without a
// fault, and waits until messages are delivered in all directions again. It returns
// false if that exceeds the bound.
func (w *world) round(r round) bool {
	var running, watching sync.WaitGroup
	over := make(chan struct{})
	for _, d := range w.unaffected(r) {
		watching.Go(func() { w.watch(d, r, over) })
	}
	for _, f := range r.faults {
		running.Go(func() {
			time.Sleep(f.after)
			f.do(f)
		})
	}
	if r.quiet > 0 {
		running.Go(func() {
			time.Sleep(r.quiet)
			w.quiet.Store(true)
		})
		defer w.quiet.Store(false)
	}
	running.Wait()
	close(over)
	watching.Wait()

	end := time.Now()
	waiting := make(map[*direction]int)
	for _, d := range w.directions {
		waiting[d] = d.ledger.mark()
	}
	last := ""
	ok := w.within(bound, func() bool {
		for d, mark := range waiting {
			if r.quiet == 0 && d.ledger.passed(mark) || r.quiet > 0 && d.ledger.sum().Lost == 0 {
				delete(waiting, d)
				last = d.name
			}
		}
		return len(waiting) == 0
	})
	w.report.round(r, last, time.Since(end))
	if !ok {
		w.t.Errorf("%s", w.stuck(r, waiting))
	}
	return ok
}

// maxUnaffected is how long messages may take between two nodes without a fault, on
// a machine where other processes are started and ended meanwhile.
const maxUnaffected = 5 * time.Second

// unaffected returns the directions between nodes without a fault in the round. In a
// quiet round there are none, because the applications stop sending.
func (w *world) unaffected(r round) (list []*direction) {
	for _, d := range w.directions {
		affected := r.quiet > 0 || slices.ContainsFunc(r.faults, func(f *fault) bool {
			return f.node == d.from || f.node == d.to || f.name == expiry || f.name == expiryOpen
		})
		if !affected {
			list = append(list, d)
		}
	}
	return list
}

// watch checks that messages are delivered in a direction until the faults are over.
func (w *world) watch(d *direction, r round, over <-chan struct{}) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	begin, mark := time.Now(), d.ledger.mark()
	longest := time.Duration(0)
	for ended := false; !ended; {
		select {
		case <-tick.C:
		case <-over:
			ended = true
		}
		longest = max(longest, time.Since(begin))
		if d.ledger.passed(mark) {
			begin, mark = time.Now(), d.ledger.mark()
		}
	}
	w.report.recordUnaffected(longest)
	if longest > maxUnaffected {
		w.t.Errorf("%s: no message was delivered for %v during faults of other nodes (%v), want at most %v", d.name, longest, r.faults, maxUnaffected)
	}
}

// stuck describes a standstill that did not end.
func (w *world) stuck(r round, waiting map[*direction]int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "no delivery in some directions within %v after %v, quiet %v:\n", bound, r.faults, r.quiet > 0)
	for d, mark := range waiting {
		fmt.Fprintf(&b, "%s waits for message %d, %+v\n", d.name, mark, d.ledger.sum())
	}
	for _, m := range w.members {
		fmt.Fprintf(&b, "--- log of %s\n%s", m.name, m.process.log)
	}
	return b.String()
}
