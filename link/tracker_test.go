package link

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A fault that may recur with each connection ends its verdict only when messages have passed, or a
// connection has lasted; its beginning does not change while it recurs. Other faults end when a
// connection is open.
func TestTrackerFaultThatRecurs(t *testing.T) {
	for _, c := range []struct {
		fault  Verdict
		opened Verdict // at once
		lasted Verdict // after the connection has lasted
	}{
		{VerdictUnreachable, VerdictLinked, VerdictLinked},
		{VerdictRefused, VerdictRefused, VerdictLinked},
		{VerdictClockDiffers, VerdictClockDiffers, VerdictLinked},
		{VerdictNotRegistered, VerdictNotRegistered, VerdictLinked},
		{VerdictBrokerUnavailable, VerdictBrokerUnavailable, VerdictLinked},
	} {
		var tr tracker
		tr.set(LinkState{Verdict: c.fault})
		since := tr.current(time.Now(), time.Hour).Since
		for range 2 {
			conn := &openConn{Connection: Connection{Since: time.Now()}}
			closed := tr.opened(conn)
			if got := tr.current(time.Now(), time.Hour); got.Verdict != c.opened || got.Verdict == c.fault && got.Since != since {
				t.Errorf("%s, and then a connection: %+v", c.fault, got)
			}
			closed()
			tr.set(LinkState{Verdict: c.fault})
			tr.connecting()
		}
		conn := &openConn{Connection: Connection{Since: time.Now()}}
		tr.opened(conn)
		if got := tr.current(time.Now().Add(steady+time.Second), time.Hour); got.Verdict != c.lasted {
			t.Errorf("%s, and then a connection that lasts: %+v", c.fault, got)
		}

		tr = tracker{}
		tr.set(LinkState{Verdict: c.fault})
		tr.opened(conn)
		tr.markWorked(time.Now())
		if got := tr.current(time.Now(), time.Hour); got.Verdict != VerdictLinked {
			t.Errorf("%s, and then messages pass: %+v", c.fault, got)
		}
	}
}

// A peer that ends each connection before it has confirmed anything does not appear as linked in
// between, and the fault lasts since the first message that it did not confirm, until it confirms one.
func TestTrackerNeverConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const unconfirmedAfter = 30 * time.Second
		var tr tracker
		first := time.Now()
		connect := func(check func()) {
			tr.connecting()
			sent := time.Now()
			closed := tr.opened(&openConn{Connection: Connection{Since: sent}, unconfirmedSince: func() time.Time { return sent }})
			for range 25 {
				if time.Since(first) > unconfirmedAfter {
					check()
				}
				time.Sleep(time.Second)
			}
			closed()
			tr.set(LinkState{Verdict: VerdictUnreachable})
			if got := tr.current(time.Now(), unconfirmedAfter); got.Since != first {
				t.Errorf("after %v, closed: %+v, expected since %v", time.Since(first), got, first)
			}
			time.Sleep(20 * time.Second)
		}
		for range 10 {
			connect(func() {
				if got := tr.current(time.Now(), unconfirmedAfter); got.Verdict != VerdictUnconfirmed || got.Since != first {
					t.Errorf("after %v: %+v, expected unconfirmed since %v", time.Since(first), got, first)
				}
			})
		}
		tr.markWorked(time.Now())
		time.Sleep(time.Second)
		first = time.Now()
		connect(func() { t.Error("an unconfirmed time in one connection") })
	})
}

// A failure counts from when the link was lost: from the attempt that follows, not from its end.
func TestTrackerSinceLost(t *testing.T) {
	var tr tracker
	tr.connecting()
	since := tr.current(time.Now(), 0).Since
	for range 3 {
		tr.set(LinkState{Verdict: VerdictUnreachable})
		tr.connecting()
	}
	if got := tr.current(time.Now(), 0); got.Verdict != VerdictUnreachable || got.Since != since || got.NextAttempt != nil {
		t.Errorf("%+v, expected unreachable since %v, with an attempt in progress", got, since)
	}
}

// Events that each last for a moment count as one episode, which ends episodeGap after the last of them.
func TestEpisode(t *testing.T) {
	var e episode
	if _, ok := e.current(time.Now()); ok {
		t.Error("the episode lasts before it has begun")
	}
	e.begin()()
	since, ok := e.current(time.Now())
	if !ok {
		t.Fatal("the episode has ended at once")
	}
	end := e.begin()
	if again, ok := e.current(time.Now().Add(time.Hour)); !ok || again != since {
		t.Errorf("the episode lasts: %v, since %v, expected since %v, while it has not ended", ok, again, since)
	}
	end()
	if _, ok := e.current(time.Now().Add(episodeGap + time.Second)); ok {
		t.Error("the episode lasts long after its end")
	}
}

// A fault that is found only when the peer connects is forgotten when the peer has stopped connecting; other verdicts stay.
func TestTrackerStale(t *testing.T) {
	for v, want := range map[Verdict]Verdict{
		VerdictNotRegistered: "", VerdictBrokerUnavailable: "", VerdictUnreachable: VerdictUnreachable, VerdictResting: VerdictResting,
	} {
		var tr tracker
		tr.set(LinkState{Verdict: v})
		if got := tr.current(time.Now().Add(time.Minute), 0).Verdict; got != v {
			t.Errorf("a minute after %s: %q", v, got)
		}
		if got := tr.current(time.Now().Add(time.Hour), 0).Verdict; got != want {
			t.Errorf("an hour after %s: %q, expected %q", v, got, want)
		}
	}
}

// A condition begins with the first check that finds it true, and later checks do not change that until it has ended.
func TestCondition(t *testing.T) {
	var c condition
	first := time.Now()
	c.observe(first)
	if since := c.observe(first.Add(time.Hour)); since != first {
		t.Errorf("since %v, expected %v", since, first)
	}
	c.end()
	if since := c.observe(first.Add(time.Hour)); since != first.Add(time.Hour) {
		t.Errorf("after its end, since %v", since)
	}
}

// Of several queues the worst is shown, and those of other processes only if there are no others.
func TestWorst(t *testing.T) {
	early, late := time.Unix(1, 0), time.Unix(2, 0)
	linked, elsewhere := LinkState{Verdict: VerdictLinked, Since: early}, LinkState{Verdict: VerdictElsewhere, Since: early}
	bad, worse := LinkState{Verdict: VerdictRefused, Since: late}, LinkState{Verdict: VerdictUnreachable, Since: early}
	for _, c := range []struct {
		states []LinkState
		want   LinkState
	}{
		{[]LinkState{linked, bad, worse}, worse},
		{[]LinkState{linked, elsewhere}, linked},
		{[]LinkState{elsewhere}, elsewhere},
	} {
		if got := worst(c.states); got != c.want {
			t.Errorf("worst of %+v: %+v", c.states, got)
		}
	}
}

// Messages that wait to become dead letters are reported at once if that fails, and after a while if it
// only takes long; a session that goes on with them does not begin to count anew.
func TestTrackerHeld(t *testing.T) {
	now := time.Now()
	long, short := now.Add(-2*heldUnnoticed), now.Add(-heldUnnoticed/2)
	full := errors.New("the queue is full")
	tests := []struct {
		name   string
		record func(*tracker)
		want   heldMessages // without the fields left and fullSince
	}{
		{"a short time", func(r *tracker) { r.setHeld(7, short, true, nil) }, heldMessages{}},
		{"failing", func(r *tracker) { r.setHeld(7, short, false, full) }, heldMessages{count: 7, since: short, reason: full.Error()}},
		{"slow", func(r *tracker) { r.setHeld(7, long, false, nil) }, heldMessages{count: 7, since: long}},
		{"slow and full", func(r *tracker) { r.setHeld(7, long, true, nil) }, heldMessages{count: 7, since: long, full: true}},
		{"failing, the oldest behind newer ones", func(r *tracker) {
			r.setHeld(7, long, false, full)
			r.setHeld(6, short, false, full)
		}, heldMessages{count: 6, since: long, reason: full.Error()}},
		{"the fault is over", func(r *tracker) {
			r.setHeld(7, long, false, full)
			r.setHeld(6, short, false, nil)
		}, heldMessages{}},
		{"none", func(r *tracker) {
			r.setHeld(7, long, false, full)
			r.setHeld(0, time.Time{}, false, nil)
		}, heldMessages{}},
		{"the session has ended", func(r *tracker) {
			r.setHeld(7, long, true, nil)
			r.leaveHeld()
		}, heldMessages{count: 7, since: long}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := new(tracker)
			tt.record(r)
			got := r.heldNow(now)
			got.left, got.fullSince = time.Time{}, time.Time{}
			if got != tt.want {
				t.Errorf("heldNow = %+v, want %+v", got, tt.want)
			}
			r.set(LinkState{Verdict: VerdictLinked})
			want := VerdictLinked
			if tt.want.full {
				want = VerdictCannotSetAside
			}
			if verdict := r.current(now, time.Hour).Verdict; verdict != want {
				t.Errorf("verdict %s, want %s", verdict, want)
			}
		})
	}

	r := new(tracker)
	r.setHeld(7, long, false, nil)
	r.leaveHeld()
	if count, since := r.heldBefore(now); count != 7 || !since.Equal(long) {
		t.Errorf("heldBefore = %d, %v, want 7, %v", count, since, long)
	}
	if count, _ := r.heldBefore(now.Add(2 * heldUnnoticed)); count != 0 {
		t.Errorf("heldBefore = %d long after the session, want 0", count)
	}
	if h := r.heldNow(now.Add(2 * heldUnnoticed)); h.count != 0 {
		t.Errorf("heldNow = %+v long after the session, want none", h)
	}
}
