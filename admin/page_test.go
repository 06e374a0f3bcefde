package admin

import (
	"net/http"
	"strings"
	"testing"

	"peerlink/link"
)

// The overview lists the worst link first, and says above what is wrong; a peer's page has the reason
// and the remedy. A peer that does not exist has no page.
func TestWorstFirst(t *testing.T) {
	status := func() link.Status {
		st := service()
		good := link.LinkState{Verdict: link.VerdictLinked, Since: testTime}
		bad := link.LinkState{Verdict: link.VerdictUnreachable, Since: testTime, Reason: "no route " + hostile, Remedy: "peerlink ping zz"}
		st.Peers = []link.PeerStatus{
			{ID: "aa", Out: good, In: good},
			{ID: "bb", Out: good, In: good, Queues: []string{hostile}},
			{ID: "zz", Name: hostile, Out: good, In: bad},
		}
		return st
	}
	s := open(t, Config{Status: status})
	_, page, _ := ask(t, s, "GET", "/", "")
	aa, zz := strings.Index(page, `href="/peers/aa"`), strings.Index(page, `href="/peers/zz"`)
	if zz < 0 || aa < zz || !strings.Contains(page, "1 of 3 links in trouble") {
		t.Errorf("the peer in trouble is not first:\n%s", page)
	}
	code, page, _ := ask(t, s, "GET", "/peers/zz", "")
	if code != http.StatusOK || !strings.Contains(page, "no route ") || !strings.Contains(page, "peerlink ping zz") || strings.Count(page, "<script") != 1 {
		t.Errorf("%d:\n%s", code, page)
	}
	if code, _, _ := ask(t, s, "GET", "/peers/yy", ""); code != http.StatusNotFound {
		t.Errorf("a peer that does not exist: %d", code)
	}
	for path, kind := range map[string]string{"/assets/live.js": "text/javascript", "/assets/style.css": "text/css"} {
		if code, _, header := ask(t, s, "GET", path, ""); code != http.StatusOK || !strings.HasPrefix(header.Get("Content-Type"), kind) {
			t.Errorf("%s: %d, %s", path, code, header.Get("Content-Type"))
		}
	}
}
