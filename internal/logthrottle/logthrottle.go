// Package logthrottle limits repeated log entries that peers or clients can cause: the
// first few are written, and the others are counted; at increasing intervals the last one is
// written, with the number of those counted.
package logthrottle

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxAtOnce is how many entries of one key are written before further ones are
	// counted. It equals the number of connections that a peer may open at once.
	maxAtOnce = 10
	// The last counted entry is written after firstRepeat, and then after four times as
	// long each time, up to lastRepeat.
	firstRepeat = time.Second
	lastRepeat  = time.Hour
	// maxKeys bounds the number of keys. Beyond it, all further keys of a Kind count as
	// the same, whatever their Who.
	maxKeys = 1024
	// strangersBurst is how many entries of unauthenticated clients are written at once in
	// total, and strangersRate how many per second after that.
	strangersBurst = 100
	strangersRate  = 1
)

// Limiter writes log entries that others can cause repeatedly. The first entries of a key
// are written immediately; further ones are counted, and only the last one is written,
// with the number of those counted, at increasing intervals. A key without an entry for a
// whole interval is removed. Its methods are safe for concurrent use.
type Limiter struct {
	pace *rate.Limiter // limit for the entries of all keys together, nil for none

	mu     sync.Mutex
	seen   map[Key]*repeat
	closed bool
}

// Key identifies entries that count as the same. Neither part may be text that others
// choose: Who is an address or a peer, Kind one of a few constants.
type Key struct{ Who, Kind string }

// repeat is the state of one key.
type repeat struct {
	again   bool // there was an entry since the last call of next
	written int  // number of entries written immediately
	count   int  // number of entries counted and not written yet
	last    entry
	pause   time.Duration
	timer   *time.Timer
}

// entry is a log entry.
type entry struct {
	log   *slog.Logger
	level slog.Level
	text  string
	args  []any
}

// New returns a Limiter, which must be closed.
func New() *Limiter { return &Limiter{seen: make(map[Key]*repeat)} }

// NewForStrangers returns a Limiter for entries that unauthenticated clients can cause,
// from any number of addresses: the entries of all of them together are limited as well.
// Beyond the limit, all further keys of a Kind count as the same.
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
		d.Who, now = "", true // one key for each Kind
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

// mayWrite reports whether an entry may be written immediately.
func (r *Limiter) mayWrite(d Key) bool {
	p := r.seen[d]
	switch {
	case p == nil && len(r.seen) >= maxKeys, p != nil && p.written == maxAtOnce:
		return false
	default:
		return r.pace == nil || r.pace.Allow()
	}
}

// next writes the last of the entries counted since its last call. If there was no entry, it
// removes the key.
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

// flush writes the last counted entry, with the number of counted entries.
func (p *repeat) flush() {
	e := p.last
	e.args = append(e.args[:len(e.args):len(e.args)], "like_this", p.count, "within", p.pause)
	e.write()
	p.count, p.last = 0, entry{}
}

// Close writes the last counted entry of each key, and stops. Later entries are dropped.
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
