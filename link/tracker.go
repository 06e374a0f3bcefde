package link

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"peerlink/internal/excerpt"
)

// tracker records what happens in one direction of a link, or in one queue of it, as a
// [LinkState]. The methods are safe for concurrent use.
type tracker struct {
	worked atomic.Int64 // when messages last were confirmed, or a connection ended in good order; in ns since 1970

	mu    sync.Mutex // guards what follows
	state LinkState  // Verdict is empty until something has happened
	at    time.Time  // when state was last set, also to what it was
	conns map[*openConn]struct{}
}

// set records an event. Since stays as it is while the verdict does, and an attempt that fails
// counts from its beginning.
func (t *tracker) set(s LinkState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.setLocked(s, time.Now())
}

func (t *tracker) setLocked(s LinkState, now time.Time) {
	t.settle(now)
	s.Since = now
	if t.state.Verdict == s.Verdict || t.state.Verdict == VerdictConnecting && s.Verdict.Severity() == Bad {
		s.Since = t.state.Since
	}
	s.Reason = excerpt.Limit(s.Reason, maxErrorText)
	t.state, t.at = s, now
}

// clear forgets the events so far if one of these verdicts follows from them.
func (t *tracker) clear(verdicts ...Verdict) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.Contains(verdicts, t.state.Verdict) {
		t.state = LinkState{}
	}
}

// connecting records that an attempt to connect begins. After a failure the verdict stays until
// the attempt succeeds.
func (t *tracker) connecting() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle(time.Now())
	t.state.NextAttempt = nil
	switch t.state.Verdict {
	case "", VerdictLinked, VerdictResting:
		t.setLocked(LinkState{Verdict: VerdictConnecting}, time.Now())
	}
}

// opened records that a connection has begun to carry messages. The caller calls closed when it
// carries no more. A verdict that may recur stays until more is known, see settle: the peer may
// accept each connection, and then refuse the same message again.
func (t *tracker) opened(c *openConn) (closed func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conns == nil {
		t.conns = make(map[*openConn]struct{})
	}
	t.conns[c] = struct{}{}
	if recursWithin(t.state.Verdict) == 0 {
		t.setLocked(LinkState{Verdict: VerdictLinked}, time.Now())
	}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.settle(time.Now())
		delete(t.conns, c)
	}
}

// lastClosed records the state after a connection has been closed, if there is no other one. A
// fault that may recur with the next connection stays.
func (t *tracker) lastClosed(s LinkState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.conns) == 0 && recursWithin(t.state.Verdict) == 0 {
		t.setLocked(s, time.Now())
	}
}

// recursWithin returns how long a connection must have lasted to show that a fault is over, if the
// fault may be found only after a connection has been opened, and 0 otherwise.
func recursWithin(v Verdict) time.Duration {
	switch v {
	case VerdictRefused, VerdictClockDiffers:
		return steady
	case VerdictNotRegistered, VerdictBrokerUnavailable:
		return steady / 10 // without a message
	}
	return 0
}

// settle changes the verdict to linked if something that has happened since it was set shows that
// it does not hold any more: messages have passed, or a connection has lasted. The caller holds mu.
func (t *tracker) settle(now time.Time) {
	if t.state.Verdict.Severity() != Bad {
		return
	}
	hold := recursWithin(t.state.Verdict)
	for c := range t.conns {
		since := later(c.Since, t.at)
		if t.workedAfter(t.at) || hold > 0 && now.Sub(since) > hold {
			t.state, t.at = LinkState{Verdict: VerdictLinked, Since: since}, now
			return
		}
	}
}

func (t *tracker) workedAfter(at time.Time) bool { return t.worked.Load() > at.UnixNano() }

// markWorked records that messages have passed.
func (t *tracker) markWorked(now time.Time) { t.worked.Store(now.UnixNano()) }

// workedSince reports whether the direction has worked after an error: messages have passed, or
// a connection has lasted for a while.
func (t *tracker) workedSince(at, now time.Time) bool {
	if t.workedAfter(at) {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.conns {
		if now.Sub(later(c.Since, at)) > steady {
			return true
		}
	}
	return false
}

// staleAfter returns how long a fault is known without a connection if nothing more happens, and 0
// if for ever: a peer that connects in vain does so every minute, and perhaps gives up.
func staleAfter(v Verdict) time.Duration {
	switch v {
	case VerdictBrokerUnavailable:
		return 2 * time.Minute
	case VerdictNotRegistered:
		return 10 * time.Minute
	}
	return 0
}

// current returns the state at the time now. If nothing has happened, its verdict is empty.
func (t *tracker) current(now time.Time, unconfirmedAfter time.Duration) LinkState {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle(now)
	switch stale := staleAfter(t.state.Verdict); {
	case stale > 0 && len(t.conns) == 0 && now.Sub(t.at) > stale:
		return LinkState{}
	case t.state.Verdict != VerdictLinked:
		return t.state
	}
	for c := range t.conns {
		if c.unconfirmedSince == nil {
			continue
		}
		if since := c.unconfirmedSince(); !since.IsZero() && now.Sub(since) > unconfirmedAfter {
			return LinkState{
				Verdict: VerdictUnconfirmed, Since: since,
				Reason: "messages were sent, and the peer confirms nothing: its broker may be unavailable, or this node's quota there full",
				Remedy: "ask the owner of the peer to look at its service: its applications may not consume their messages",
			}
		}
	}
	return t.state
}

// worst returns the worst of several states and, among equals, the one that has lasted longest.
// Those of queues that other processes serve count only if there are no others.
func worst(states []LinkState) LinkState {
	if here := slices.DeleteFunc(slices.Clone(states), func(s LinkState) bool { return s.Verdict == VerdictElsewhere }); len(here) > 0 {
		states = here
	}
	return slices.MinFunc(states, func(a, b LinkState) int {
		return cmp.Or(cmp.Compare(a.Verdict.Severity(), b.Verdict.Severity()), a.Since.Compare(b.Since))
	})
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// episode is a condition that may begin and end many times a second. It counts as one until it
// has been over for episodeGap.
type episode struct {
	mu     sync.Mutex
	active int       // how many connections it holds for
	since  time.Time // when it began
	last   time.Time // when it last held
}

const episodeGap = 10 * time.Second

// begin records that the condition holds until end is called.
func (e *episode) begin() (end func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	if e.active == 0 && now.Sub(e.last) > episodeGap {
		e.since = now
	}
	e.active++
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.active--
		e.last = time.Now()
	}
}

// holds reports whether the condition holds, and since when.
func (e *episode) holds(now time.Time) (since time.Time, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.since, e.active > 0 || now.Sub(e.last) < episodeGap
}

// condition is a condition that has a beginning and an end.
type condition struct {
	mu    sync.Mutex
	began time.Time // zero while it does not hold
}

// hold records that the condition holds at the time now, and returns since when it does.
func (c *condition) hold(now time.Time) (since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.began.IsZero() {
		c.began = now
	}
	return c.began
}

// end records that the condition does not hold.
func (c *condition) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began = time.Time{}
}
