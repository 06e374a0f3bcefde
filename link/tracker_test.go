package link

import (
	"testing"
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
