package link

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A resting link is checked between half of the interval and the interval after the last check. A
// peer that seems to have crashed is checked earlier, but cannot cause more than a check a minute.
func TestScheduleCheck(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name             string
		rested           time.Duration // before the beginning
		crash            bool
		earliest, latest time.Duration
	}{
		{"nothing happens", 0, false, day / 2, day},
		{"a crash at once", 0, true, minCheckPause, minCheckPause},
		{"a crash later", time.Hour, true, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				sd := &sender{s: &shared{cfg: Config{CheckInterval: day}}, peer: new(peer), restedAt: begin.Add(-c.rested)}
				due := make(chan time.Duration, 1)
				defer sd.scheduleCheck(context.Background(), func() { due <- time.Since(begin) })()
				if c.crash {
					sd.peer.checkNow.Notify()
				}
				if after := <-due; after < c.earliest || after > c.latest {
					t.Errorf("checked after %v, expected %v to %v", after, c.earliest, c.latest)
				}
			})
		})
	}
}
