package link

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"peerlink/internal/excerpt"
)

// tracker records what happens in one direction of a link, or in one queue of it, as a
// [LinkState]. The methods are safe for concurrent use.
type tracker struct {
	// worked is when messages last passed (they were confirmed by the peer, or stored by this
	// node's broker), or when a connection last ended in good order; in ns since 1970.
	worked atomic.Int64

	mu    sync.Mutex             // guards what follows
	state LinkState              // Verdict is empty until something has happened
	at    time.Time              // when the last event was recorded, also if the verdict stayed the same
	conns map[*openConn]struct{} // the open connections
	held  heldMessages
	// unanswered is since when messages that were sent have not been confirmed, on the connections that
	// ended before unansweredAt, the end of the last one; zero if all were.
	unanswered, unansweredAt time.Time
}

const (
	// unansweredMemory is how long after a connection on which messages were not confirmed the next
	// one continues the fault: longer than the pauses between attempts.
	unansweredMemory = 3 * time.Minute
	// The next connection continues the fault if it is younger than newConnTime, or if its messages have
	// not been confirmed for longer than answerTime.
	answerTime, newConnTime = time.Second, 3 * time.Second
)

// unansweredSince returns since when messages have not been confirmed on earlier connections, or the
// zero time if they were, or if that is long ago. The caller holds mu.
func (t *tracker) unansweredSince(now time.Time) time.Time {
	if t.workedAfter(t.unanswered) || now.Sub(t.unansweredAt) > unansweredMemory {
		return time.Time{}
	}
	return t.unanswered
}

// recordUnanswered records that a connection ends, on which messages may not have been confirmed. The
// caller holds mu.
func (t *tracker) recordUnanswered(c *openConn, now time.Time) {
	if c.unconfirmedSince == nil {
		return
	}
	since := c.unconfirmedSince()
	if since.IsZero() {
		return
	}
	if t.unansweredSince(now).IsZero() {
		t.unanswered = since
	}
	t.unansweredAt = now
}

// heldMessages are messages of a queue that cannot be sent, and wait to become dead letters.
type heldMessages struct {
	count  int       // 0 if there are none
	since  time.Time // when the oldest of them began to wait
	reason string    // why the last attempts to make them dead letters have failed; "" if they have not

	full      bool      // so many that the broker holds no more, and nothing is sent from the queue
	fullSince time.Time // valid if full

	// left is when the session ended that received them; zero if it has not ended. The next session
	// receives them again.
	left time.Time
}

// heldUnnoticed is how long messages may wait to become dead letters without being reported, if no
// attempt has failed: a number of them takes a moment. It is also how long they are reported after the
// end of a session, if no other one receives them.
const heldUnnoticed = 10 * time.Second

// reportable reports whether an operator has to know of the messages: making them dead letters fails,
// or takes long.
func (h *heldMessages) reportable(now time.Time) bool {
	return h.known(now) && (h.reason != "" || now.Sub(h.since) > heldUnnoticed)
}

// known reports whether the messages still wait, as far as is known.
func (h *heldMessages) known(now time.Time) bool {
	return h.count > 0 && (h.left.IsZero() || now.Sub(h.left) < heldUnnoticed)
}

// setHeld records that a number of messages wait to become dead letters, when the oldest of them began
// to wait, and why the last attempts to make them dead letters have failed, or nil. full is whether the
// broker holds no more of them.
func (t *tracker) setHeld(count int, since time.Time, full bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if count == 0 {
		t.held = heldMessages{}
		return
	}
	before, now := t.held, time.Now()
	t.held = heldMessages{count: count, since: since, full: full, fullSince: now}
	h := &t.held
	if err != nil {
		h.reason = excerpt.Limit(err.Error(), maxErrorText)
	}
	if full && before.full {
		h.fullSince = before.fullSince
	}
	// Messages whose attempts have failed are tried after newer ones.
	if before.known(now) && before.reason != "" && err != nil && before.since.Before(since) {
		h.since = before.since
	}
}

// heldBefore returns the messages that waited to become dead letters when the last session ended, a
// short time ago, and since when. The next session receives them first.
func (t *tracker) heldBefore(now time.Time) (count int, since time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.held.known(now) {
		return 0, time.Time{}
	}
	return t.held.count, t.held.since
}

// leaveHeld records that the session ends, and that the messages which wait to become dead letters
// stay in the queue.
func (t *tracker) leaveHeld() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held.full, t.held.left = false, time.Now()
}

// heldNow returns the messages that wait to become dead letters, if an operator has to know of them.
func (t *tracker) heldNow(now time.Time) heldMessages {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.held.reportable(now) {
		return heldMessages{}
	}
	return t.held
}

// set records an event. s.Since is not used: the state begins now, unless the verdict stays the
// same, or an attempt to connect has failed; then it begins when that verdict or attempt did.
func (t *tracker) set(s LinkState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.setLocked(s, time.Now())
}

func (t *tracker) setLocked(s LinkState, now time.Time) {
	t.endFaultIfOver(now)
	s.Since = now
	if t.state.Verdict == s.Verdict || t.state.Verdict == VerdictConnecting && s.Verdict.Severity() == Bad {
		s.Since = t.state.Since
	}
	if earlier := t.unansweredSince(now); s.Verdict.Severity() == Bad && !earlier.IsZero() && earlier.Before(s.Since) {
		s.Since = earlier
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
	t.endFaultIfOver(time.Now())
	t.state.NextAttempt = nil
	switch t.state.Verdict {
	case "", VerdictLinked, VerdictResting:
		t.setLocked(LinkState{Verdict: VerdictConnecting}, time.Now())
	}
}

// opened records that a connection has begun to carry messages. The caller calls closed when it
// carries no more. A fault that may recur (see recursWithin) stays until endFaultIfOver ends it: the
// peer may accept each connection, and then refuse the same message again.
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
		t.endFaultIfOver(time.Now())
		t.recordUnanswered(c, time.Now())
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
		return steady / 10 // recurs early: it does not depend on a certain message
	}
	return 0
}

// endFaultIfOver replaces a fault by the verdict linked if something that has happened since the
// fault was recorded shows that it is over: messages have passed, or a connection has lasted. The
// caller holds mu.
func (t *tracker) endFaultIfOver(now time.Time) {
	if t.state.Verdict.Severity() != Bad {
		return
	}
	within := recursWithin(t.state.Verdict)
	for c := range t.conns {
		since := later(c.Since, t.at)
		if t.workedAfter(t.at) || within > 0 && now.Sub(since) > within {
			t.state, t.at = LinkState{Verdict: VerdictLinked, Since: since}, now
			return
		}
	}
}

// workedAfter reports whether messages have passed, or a connection has ended in good order, after
// the time at.
func (t *tracker) workedAfter(at time.Time) bool { return t.worked.Load() > at.UnixNano() }

// markWorked records that messages have passed, or a connection has ended in good order.
func (t *tracker) markWorked(now time.Time) { t.worked.Store(now.UnixNano()) }

// workedSince reports whether the direction has worked after an error at the time at: messages
// have passed, or a connection has lasted, or has ended in good order.
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

// staleAfter returns how long a fault is reported after it was last recorded, while there is no
// connection; 0 means without limit. A fault with a limit is recorded again at each attempt of the
// peer, which connects every minute until it succeeds. If it gives up, it is unknown whether the
// fault persists.
func staleAfter(v Verdict) time.Duration {
	switch v {
	case VerdictBrokerUnavailable:
		return 2 * time.Minute
	case VerdictNotRegistered:
		return 10 * time.Minute
	}
	return 0
}

// slowReason is why messages that wait to be set aside are reported if no attempt has failed.
const slowReason = "the broker takes long to set them aside"

// heldRemedy returns what an operator can do about messages that wait to be set aside. reason is why
// that has failed; "" if it only takes long.
func heldRemedy(reason string) string {
	if reason == "" {
		return "nothing if it is over soon; otherwise see whether the broker or its disk is overloaded, and which application sends so many invalid messages"
	}
	return "see docs/queues.md, about limits of queues: make room with peerlink queue retry or queue drop, or raise the limit of the queue of those set aside"
}

// current returns the state at the time now. If nothing has happened, its verdict is empty. The
// verdict is [VerdictUnconfirmed] if the peer has confirmed nothing for longer than
// unconfirmedAfter, although messages were sent.
func (t *tracker) current(now time.Time, unconfirmedAfter time.Duration) LinkState {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.endFaultIfOver(now)
	switch stale := staleAfter(t.state.Verdict); {
	case stale > 0 && len(t.conns) == 0 && now.Sub(t.at) > stale:
		return LinkState{}
	case t.state.Verdict != VerdictLinked:
		return t.state
	case t.held.full && t.held.reportable(now):
		return LinkState{
			Verdict: VerdictCannotSetAside, Since: t.held.fullSince,
			Reason: fmt.Sprintf("as many messages as are possible (%d) wait to be set aside: %s", t.held.count, cmp.Or(t.held.reason, slowReason)),
			Remedy: heldRemedy(t.held.reason),
		}
	}
	for c := range t.conns {
		if c.unconfirmedSince == nil {
			continue
		}
		since := c.unconfirmedSince()
		// A peer that ends each connection before it has confirmed anything is not linked in between.
		if earlier := t.unansweredSince(now); !earlier.IsZero() && (now.Sub(c.Since) < newConnTime || !since.IsZero() && now.Sub(since) > answerTime) {
			since = earlier
		}
		if !since.IsZero() && now.Sub(since) > unconfirmedAfter {
			return LinkState{
				Verdict: VerdictUnconfirmed, Since: since,
				Reason: "messages were sent, and the peer confirms nothing: its broker may be unavailable, or the quota that it has for this node may be full",
				Remedy: "ask the owner of the peer to look at its service: its applications may not consume their messages",
			}
		}
	}
	return t.state
}

// worst returns the worst of one or more states and, among equally bad ones, the one that has lasted
// longest. [VerdictElsewhere] counts only if no state has another verdict.
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

// episode records since when something is the case that may begin and end many times a second.
// Interruptions shorter than episodeGap do not end the episode.
type episode struct {
	mu     sync.Mutex
	active int       // how many calls of begin have not ended
	since  time.Time // when the episode began
	last   time.Time // when active last became less
}

const episodeGap = 10 * time.Second

// begin records that the episode lasts at least until end is called. There may be several calls of
// begin at once, one for each connection.
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

// current reports whether the episode lasts at the time now, and since when it does.
func (e *episode) current(now time.Time) (since time.Time, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.since, e.active > 0 || now.Sub(e.last) < episodeGap
}

// condition records since when something is the case that is checked only now and then.
type condition struct {
	mu    sync.Mutex
	began time.Time // the first check that found it to be the case; zero while it is not
}

// observe records that a check at the time now has found the condition true. It returns the time of
// the first such check since end was called.
func (c *condition) observe(now time.Time) (since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.began.IsZero() {
		c.began = now
	}
	return c.began
}

// end records that a check has found the condition false.
func (c *condition) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began = time.Time{}
}
