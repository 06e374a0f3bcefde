package smp

import (
	"testing"
	"time"
)

// Invariant: FromFuture has the same limit as Incoming, and returns false for an invalid
// message.
func TestFromFuture(t *testing.T) {
	ts := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	const body = `{"type": "AccountPurge", "debtor_id": 1, "creditor_id": 2, "creation_date": "2026-01-01", "ts": "2026-01-01T12:00:00Z"}`
	for _, c := range []struct {
		name, typ, body string
		now             time.Time
		want            bool
	}{
		{"in time", AccountPurge, body, ts, false},
		{"just allowed", AccountPurge, body, ts.Add(-maxAhead), false},
		{"just too far", AccountPurge, body, ts.Add(-maxAhead - time.Microsecond), true},
		{"days ahead", AccountPurge, body, ts.AddDate(0, 0, -3), true},
		{"days old", AccountPurge, body, ts.AddDate(0, 0, 3), false},
		{"another type", ConfigureAccount, body, ts.AddDate(0, 0, -3), false},
		{"no type", "x", body, ts.AddDate(0, 0, -3), false},
		{"no message", AccountPurge, "{}", ts.AddDate(0, 0, -3), false},
	} {
		if got := FromFuture(c.typ, []byte(c.body), c.now); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
