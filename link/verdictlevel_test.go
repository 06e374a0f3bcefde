package link

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"peerlink/internal/logthrottle"
)

// Of what happens to a link, the beginning and the end of a trouble are logged, each once, and nothing else.
func TestVerdictLogger(t *testing.T) {
	var out bytes.Buffer
	limiter := logthrottle.New()
	defer limiter.Close()
	w := verdictLogger{slog.New(slog.NewTextHandler(&out, nil)), limiter, make(map[directionOf]Verdict), make(map[directionOf]Verdict)}
	for _, v := range []Verdict{
		VerdictConnecting, VerdictLinked, VerdictResting, VerdictConnecting, VerdictLinked,
		VerdictUnreachable, VerdictUnreachable, VerdictConnecting, VerdictLinked, VerdictResting, VerdictSuspended, VerdictLinked,
	} {
		w.note(directionOf{"1234abcd", "out"}, LinkState{Verdict: v, Reason: "because"})
	}
	want := []string{
		"level=WARN .*verdict=unreachable before=linked reason=because",
		"level=INFO .*verdict=linked before=unreachable",
		"level=INFO .*verdict=suspended before=resting",
		"level=INFO .*verdict=linked before=suspended",
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d records, expected %d:\n%s", len(lines), len(want), out.String())
	}
	for i, line := range lines {
		level, rest, _ := strings.Cut(want[i], " .*")
		if !strings.Contains(line, level) || !strings.Contains(line, rest) || !strings.Contains(line, "peer=1234abcd direction=out") {
			t.Errorf("%s\nexpected %s", line, want[i])
		}
	}
}
