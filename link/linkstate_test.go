package link

import (
	"strings"
	"testing"
	"time"
)

// Each verdict has a severity and words, so that no reader has to know the list.
func TestVerdictsDescribed(t *testing.T) {
	for v, d := range verdicts {
		if d.words == "" || strings.Contains(d.words, "_") || v.Severity() != d.severity {
			t.Errorf("%s: %+v", v, d)
		}
	}
	if got := Verdict("of_the_future"); got.Severity() != Warn || got.Words() != "of_the_future" {
		t.Errorf("an unknown verdict is %v, %q", got.Severity(), got.Words())
	}
}

// The sentence about a link says since when, and why.
func TestSentence(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	contact := now.Add(-3 * time.Hour)
	for _, c := range []struct {
		s    LinkState
		want string
	}{
		{LinkState{Verdict: VerdictLinked, Since: now.Add(-73 * time.Hour)}, "linked for 3 days"},
		{LinkState{Verdict: VerdictResting, Since: now.Add(-4 * time.Hour)}, "resting, last contact 3 h ago"},
		{LinkState{Verdict: VerdictUnreachable, Since: now.Add(-134 * time.Minute), Reason: "connection refused by 203.0.113.9:1234"},
			"unreachable for 2 h 14 min: connection refused by 203.0.113.9:1234"},
		{LinkState{Verdict: VerdictConnecting, Since: now.Add(time.Second)}, "connecting for 0 s"},
		{LinkState{Verdict: VerdictDeactivated}, "deactivated"},
	} {
		if got := c.s.Sentence(now, &contact); got != c.want {
			t.Errorf("got %q, expected %q", got, c.want)
		}
	}
}
