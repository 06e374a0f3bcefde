package link_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"peerlink/link"
	"peerlink/link/linktest"
)

// The loss of a link is logged once in each direction, with the peer, the verdict and the reason, however many attempts
// fail; and so is its return. That a link rests and is linked again is not.
func TestVerdictChangesLogged(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	outBecomes(t, authority, other, link.VerdictLinked, "")
	if err := other.Stop(); err != nil {
		t.Fatal(err)
	}
	lost := fmt.Sprintf("level=WARN msg=\"the state of the link has changed\" peer=%s direction=out verdict=unreachable ", other.Identity().ID)
	awaitLog(t, authority, regexp.QuoteMeta(lost))
	failures := statusOf(t, authority, other).Counts.Failures
	linktest.Eventually(t, "more attempts", func() error {
		if n := statusOf(t, authority, other).Counts.Failures; n < failures+3 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	other.Start()
	awaitLog(t, authority, `direction=out verdict=(linked|resting) before=unreachable`)
	awaitLog(t, authority, `direction=in verdict=(linked|resting) before=unreachable`)
	text := authority.Log.String()
	_, record, _ := strings.Cut(text, lost)
	record, _, _ = strings.Cut(record, "\n")
	if n := strings.Count(text, lost); n != 1 || !strings.Contains(record, "reason=") || !strings.Contains(record, "what_to_do=") {
		t.Errorf("the loss is logged %d times:\n%s", n, text)
	}
	if strings.Contains(text, "verdict=linked before=connecting") {
		t.Errorf("a usual change is logged:\n%s", text)
	}
}

// awaitLog waits until the node's log matches a pattern.
func awaitLog(t *testing.T, n *linktest.Node, pattern string) {
	t.Helper()
	linktest.Eventually(t, pattern, func() error {
		if log := n.Log.String(); !regexp.MustCompile(pattern).MatchString(log) {
			return fmt.Errorf("the log is\n%s", log)
		}
		return nil
	})
}
