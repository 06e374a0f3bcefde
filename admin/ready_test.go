package admin

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"peerlink/link"
)

// GET /readyz names the links in which messages do not pass, with the same verdicts as GET /links, whether the service is
// ready or not; they do not determine the status, and are bounded.
func TestReadyNamesLinks(t *testing.T) {
	status := service()
	good := link.LinkState{Verdict: link.VerdictLinked, Since: testTime}
	bad := link.LinkState{Verdict: link.VerdictNotRegistered, Since: testTime, Reason: "unknown"}
	status.Peers = []link.PeerStatus{{ID: "aa", Out: good, In: bad}, {ID: "bb", Out: good, In: good}}
	problem := ""
	var mu sync.Mutex // guards status and problem, which the history of the page reads too
	s := open(t, Config{Status: func() link.Status {
		mu.Lock()
		defer mu.Unlock()
		st := status
		st.HealthError, st.Peers = problem, slices.Clone(status.Peers)
		return st
	}})
	code, answer, _ := ask(t, s, "GET", "/readyz", "")
	if code != http.StatusOK || !strings.HasPrefix(answer, "ready\nlink aa in: not registered for ") || !strings.Contains(answer, ": unknown") || strings.Contains(answer, "bb") {
		t.Errorf("%d %q", code, answer)
	}
	mu.Lock()
	problem = "no disk"
	for i := range 30 {
		status.Peers = append(status.Peers, link.PeerStatus{ID: fmt.Sprint("cc", i), Out: bad, In: bad})
	}
	mu.Unlock()
	code, answer, _ = ask(t, s, "GET", "/readyz", "")
	if lines := strings.Split(strings.TrimSpace(answer), "\n"); code != http.StatusServiceUnavailable || lines[0] != "no disk" || len(lines) != 2+maxLinksInTrouble || lines[21] != "and 41 more" {
		t.Errorf("%d %q", code, answer)
	}
}
