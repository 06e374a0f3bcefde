package admin

import (
	"fmt"
	"testing"
	"time"

	"peerlink/link"
)

// linksAt returns the state of a service with one peer that has been sent n messages.
func linksAt(at time.Time, id string, n uint64) *Links {
	return &Links{At: at, Status: link.Status{Peers: []link.PeerStatus{{ID: id, Queues: []string{"q"}, Counts: link.Counts{Sent: n, Received: n / 2}}}}, Queues: []Queue{{Name: "q", Messages: 7}}}
}

// The history has the rates between samplings, and no more than the last hour. A peer that is new,
// or has been away, begins anew instead of showing a rate over the time that is unknown.
func TestHistory(t *testing.T) {
	var h history
	at, sent := testTime, uint64(0)
	for range historySamples + 50 {
		at, sent = at.Add(10*time.Second), sent+20
		h.record(linksAt(at, "a", sent))
	}
	got := h.of("a")
	if want := (sample{out: 2, in: 1, waiting: 7}); len(got) != historySamples || got[0] != want || got[len(got)-1] != want {
		t.Errorf("%d samples, the last %+v; want %d of %+v", len(got), got[len(got)-1], historySamples, want)
	}
	h.record(linksAt(at.Add(10*time.Second), "b", 1e6))
	if got := h.of("b"); len(got) != 1 || got[0].out != 0 {
		t.Errorf("a new peer: %+v", got)
	}
	h.record(linksAt(at.Add(20*time.Second), "a", sent+40))
	if got := h.of("a"); len(got) != 1 || got[0].out != 0 {
		t.Errorf("a peer that has been away: %+v", got)
	}
	h.record(linksAt(at.Add(30*time.Second), "a", 3))
	if got := h.of("a"); len(got) != 2 || got[1].out != 0 || got[1].in != 0 {
		t.Errorf("the counters of a peer begin anew: %+v", got)
	}
	if got := h.of(""); len(got) != historySamples {
		t.Errorf("%d samples of all peers, want %d", len(got), historySamples)
	}
}

// However many peers there are, the history takes a bounded amount of memory, and peers that are
// gone for an hour make room for others.
func TestHistoryIsBounded(t *testing.T) {
	var h history
	for i := range maxHistoryPeers + 10 {
		h.record(linksAt(testTime.Add(time.Duration(i)*time.Second), fmt.Sprint(i), 0))
	}
	if n := len(h.peers); n > historySamples+2 {
		t.Errorf("%d peers have a history; most have been away for longer than it lasts", n)
	}
	many := linksAt(testTime, "a", 0)
	for i := range maxHistoryPeers + 10 {
		many.Peers = append(many.Peers, link.PeerStatus{ID: fmt.Sprint("new", i)})
	}
	h.record(many)
	if n := len(h.peers); n > maxHistoryPeers {
		t.Errorf("%d peers have a history, want at most %d", n, maxHistoryPeers)
	}
}
