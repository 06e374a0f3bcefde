package link

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// When a node is unreachable, its peers fetch its info-bundle neither at once nor all
// together, less and less often, and not at all when it is back.
func TestFollowerSchedule(t *testing.T) {
	cfg := Follow{After: time.Minute, MaxPause: time.Hour, Every: 12 * time.Hour}
	const peers = 1000
	var first, routine []time.Duration
	for range peers {
		var f follower
		start := time.Now()
		if f.due(cfg) {
			t.Fatal("due at the first check")
		}
		routine = append(routine, f.nextRoutine.Sub(start))
		f.recordFailure(cfg)
		retry := f.nextRetry
		first = append(first, retry.Sub(start))
		if f.recordFailure(cfg); f.nextRetry != retry {
			t.Fatal("the second failure puts the fetch off")
		}
		for want := 2 * time.Minute; want < 4*time.Hour; want *= 2 {
			want := min(want, time.Hour)
			f.begin()
			f.end(cfg, nil, nil)
			if got := time.Until(f.nextRetry); got < want-10*time.Second || got > want+want/2 {
				t.Fatalf("the next pause is %v, want %v and up to a half more", got, want)
			}
			if got := time.Until(f.nextRoutine); got > 24*time.Hour {
				t.Fatalf("the next routine fetch is in %v", got)
			}
		}
	}
	for name, tt := range map[string]struct {
		got      []time.Duration
		from, to time.Duration
	}{
		"first":   {first, time.Minute, 100 * time.Second},
		"routine": {routine, 0, 12*time.Hour + time.Minute},
	} {
		slices.Sort(tt.got)
		if tt.got[0] < tt.from || tt.got[peers-1] > tt.to {
			t.Errorf("%s: from %v to %v, want %v to %v", name, tt.got[0], tt.got[peers-1], tt.from, tt.to)
		}
		// The middle half of the times covers about half of the range.
		if spread := tt.got[3*peers/4] - tt.got[peers/4]; spread < (tt.to-tt.from)/3 {
			t.Errorf("%s: half of them come within %v", name, spread)
		}
	}
}

var errTest = errors.New("test")

// A fetch is due while no connection is in use and attempts fail, and two fetches never
// run at once.
func TestFollowerState(t *testing.T) {
	cfg := Follow{After: 1, MaxPause: 1, Every: time.Hour} // a fetch is due a moment after a failure
	var f follower
	wait := func(want bool, when string) {
		t.Helper()
		f.mu.Lock()
		retry := f.nextRetry
		f.mu.Unlock()
		for time.Now().Before(retry) { // a nanosecond or two
		}
		f.mu.Lock()
		f.nextRoutine = time.Now().Add(time.Hour)
		f.mu.Unlock()
		if got := f.due(cfg); got != want {
			t.Errorf("%s: due is %v, want %v", when, got, want)
		}
	}
	wait(false, "at first")
	f.recordFailure(cfg)
	wait(true, "failing")
	f.begin()
	wait(false, "being fetched")
	if !f.end(cfg, nil, errTest) || f.end(cfg, nil, errTest) || !f.end(cfg, nil, nil) {
		t.Error("a problem is to be reported once")
	}
	wait(true, "failing still")
	one, two := f.addConn(), f.addConn()
	wait(false, "connected")
	one()
	f.recordFailure(cfg)
	wait(false, "one of two connections lost")
	two()
	wait(false, "closed in good order")
	f.recordFailure(cfg)
	wait(true, "failing again")
}
