// Package repeats keeps others from flooding the log: what they do again and again is
// told a few times, then counted, and told at growing intervals.
package logthrottle

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// toldAtOnce is how often the same is told before it is counted. It is as
	// often as a peer may connect.
	toldAtOnce = 10
	// What repeats is told after firstRepeat, and then after four times as long
	// each time, up to lastRepeat.
	firstRepeat = time.Second
	lastRepeat  = time.Hour
	// maxRepeats is how many different things are remembered. Beyond that, those
	// of the same kind count as the same, whoever does them.
	maxRepeats = 1024
	// strangersBurst is how many entries strangers together may cause at once, and
	// strangersRate how many in a second after that.
	strangersBurst = 100
	strangersRate  = 1
)

// Limiter writes into the log what others do, so that they can not flood it.
// The first times are told at once; more of the same is counted, and told at
// growing intervals. After an interval in which nothing happened, all is
// forgotten. Its methods are safe for concurrent use.
type Limiter struct {
	pace *rate.Limiter // of the entries of all together, nil for no limit

	mu     sync.Mutex
	seen   map[Key]*repeat
	closed bool
}

// Key is what counts as the same. Neither part may be of another's choice: Who
// is an address or a peer, Kind one of a few.
type Key struct{ Who, Kind string }

type repeat struct {
	again bool // it has happened since next was last called
	told  int  // times told at once
	count int  // times not told yet
	last  entry
	pause time.Duration
	timer *time.Timer
}

// entry is an entry of the log.
type entry struct {
	log   *slog.Logger
	level slog.Level
	text  string
	args  []any
}

// New makes one, which must be closed.
func New() *Limiter { return &Limiter{seen: make(map[Key]*repeat)} }

// NewForStrangers is New for what anybody can do, from as many addresses as they
// have: all of them together are limited as well. Beyond the limit, those of the
// same kind count as the same.
func NewForStrangers() *Limiter {
	r := New()
	r.pace = rate.NewLimiter(strangersRate, strangersBurst)
	return r
}

// Log writes an entry, or counts it.
func (r *Limiter) Log(log *slog.Logger, level slog.Level, d Key, text string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	now := r.mayWrite(d)
	if r.seen[d] == nil && !now {
		d.Who, now = "", true // there is one for each kind
	}
	p := r.seen[d]
	if p == nil {
		p = &repeat{pause: firstRepeat}
		p.timer = time.AfterFunc(p.pause, func() { r.next(d, p) })
		r.seen[d] = p
	}
	p.again = true
	e := entry{log, level, text, args}
	if now && p.told < toldAtOnce {
		p.told++
		e.write()
		return
	}
	p.count++
	p.last = e
}

// mayWrite reports whether what was done may be written at once and on its own.
func (r *Limiter) mayWrite(d Key) bool {
	p := r.seen[d]
	switch {
	case p == nil && len(r.seen) >= maxRepeats, p != nil && p.told == toldAtOnce:
		return false
	default:
		return r.pace == nil || r.pace.Allow()
	}
}

// next tells what has been counted since it was told last.
func (r *Limiter) next(d Key, p *repeat) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	if !p.again {
		delete(r.seen, d)
		return
	}
	p.again = false
	if p.count > 0 {
		p.flush()
	}
	p.pause = min(4*p.pause, lastRepeat)
	p.timer.Reset(p.pause)
}

// flush tells the last entry, and how many there were.
func (p *repeat) flush() {
	e := p.last
	e.args = append(e.args[:len(e.args):len(e.args)], "like_this", p.count, "within", p.pause)
	e.write()
	p.count, p.last = 0, entry{}
}

// Close tells what has not been told, and stops.
func (r *Limiter) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, p := range r.seen {
		p.timer.Stop()
		if p.count > 0 {
			p.flush()
		}
	}
	clear(r.seen)
}

func (e entry) write() { e.log.Log(context.Background(), e.level, e.text, e.args...) }
