package link

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// However often a peer comes and goes, and however long its errors are, what is kept of its past is bounded: the
// newest events, of which one that repeats takes one place, and the servers that it names at present.
func TestEventsAreBounded(t *testing.T) {
	var s peerStats
	for i := range 10 * maxEvents {
		s.recordError(outgoing, fmt.Errorf("error %d %s", i, strings.Repeat("x", 10_000)))
		s.recordServer(fmt.Sprint("old server ", i), nil, errors.New(strings.Repeat("x", 10_000)))
	}
	for range 5 {
		s.recordError(outgoing, errors.New("again"))
	}
	events := s.recentEvents()
	if len(events) != maxEvents || events[0].Text != "again" || events[0].Times != 5 || !events[0].Failure {
		t.Errorf("%d events, the newest is %+v", len(events), events[0])
	}
	if newest := events[1]; !strings.HasPrefix(newest.Text, fmt.Sprintf("error %d ", 10*maxEvents-1)) || len(newest.Text) > maxEventText+len("…") {
		t.Errorf("%d bytes: %.20s", len(newest.Text), newest.Text)
	}
	if len(s.servers) > maxServerResults {
		t.Errorf("%d servers", len(s.servers))
	}
	s.recordServer("server", nil, nil)
	if r := s.serverResult("server"); r.At.IsZero() || r.Error != "" {
		t.Errorf("a server that was reached: %+v", r)
	}
	if r := s.serverResult("other"); !r.At.IsZero() || r.Address != "other" {
		t.Errorf("a server that was not tried: %+v", r)
	}
}

// A connection is in the history when it begins and when it ends.
func TestConnectionsAreEvents(t *testing.T) {
	var s peerStats
	closed := s.connOpened(&openConn{Connection: Connection{Direction: Receiving, Remote: "192.0.2.1:5"}})
	closed()
	events := s.recentEvents()
	if len(events) != 2 || events[1].Text != "the connection from 192.0.2.1:5 has begun" || events[0].Text != "the connection from 192.0.2.1:5 has ended" {
		t.Errorf("%+v", events)
	}
}
