// Package logthrottle keeps others from flooding the log: of entries that repeat, the first
// few are written, and the rest is counted and written at growing intervals.
package logthrottle

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxAtOnce is how many like entries are written before they are counted. It is as
	// often as a peer may connect.
	maxAtOnce = 10
	// Counted entries are written after firstRepeat, and then after four times as long
	// each time, up to lastRepeat.
	firstRepeat = time.Second
	lastRepeat  = time.Hour
	// maxRepeats is how many keys are remembered. Beyond that, those
	// of the same kind count as the same, whatever their Who.
	maxRepeats = 1024
	// strangersBurst is how many entries strangers together may cause at once, and
	// strangersRate how many in a second after that.
	strangersBurst = 100
	strangersRate  = 1
)

// Limiter writes log entries that others can cause again and again.
// The first like entries are written at once; more of them are counted, and written at
// growing intervals. A key without an entry for a whole interval is forgotten. Its methods are safe for concurrent use.
type Limiter struct {
	pace *rate.Limiter // of the entries of all together, nil for no limit

	mu     sync.Mutex
	seen   map[Key]*repeat
	closed bool
}

// Key identifies entries that count as the same. Neither part may be text that others
// choose: Who is an address or a peer, Kind one of a few constants.
type Key struct{ Who, Kind string }

type repeat struct {
	again   bool // it has happened since next was last called
	written int  // times written at once
	count   int  // times not written yet
	last    entry
	pause   time.Duration
	timer   *time.Timer
}

// entry is an entry of the log.
type entry struct {
	log   *slog.Logger
	level slog.Level
	text  string
	args  []any
}

// New returns a Limiter, which must be closed.
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
	if now && p.written < maxAtOnce {
		p.written++
		e.write()
		return
	}
	p.count++
	p.last = e
}

// mayWrite reports whether an entry may be written at once and on its own.
func (r *Limiter) mayWrite(d Key) bool {
	p := r.seen[d]
	switch {
	case p == nil && len(r.seen) >= maxRepeats, p != nil && p.written == maxAtOnce:
		return false
	default:
		return r.pace == nil || r.pace.Allow()
	}
}

// next logs what has been counted since the last entry.
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

// flush logs the last entry, and how many were counted.
func (p *repeat) flush() {
	e := p.last
	e.args = append(e.args[:len(e.args):len(e.args)], "like_this", p.count, "within", p.pause)
	e.write()
	p.count, p.last = 0, entry{}
}

// Close logs what was counted and not logged, and stops.
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
