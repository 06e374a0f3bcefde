package admin

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"peerlink/broker/embedded"
	"peerlink/internal/costtest"
	"peerlink/internal/latency"
	"peerlink/link"
)

// clientOf returns a client of a server that responds to every request with a text, with or without
// Content-Length.
func clientOf(t *testing.T, text string, chunked bool) *Client {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !chunked {
			w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		}
		for rest := text; len(rest) > 0; { // without a copy of all of it
			n := min(len(rest), 32<<10)
			if _, err := io.WriteString(w, rest[:n]); err != nil {
				return
			}
			rest = rest[n:]
		}
	}))
	t.Cleanup(s.Close)
	address, err := ParseAddress(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return NewClient(address)
}

// manyPeers returns the state of a service with n peers that are linked in both directions and have
// failed before, and the statistics of its queues, with times in a zone.
func manyPeers(n int, zone *time.Location) (link.Status, embedded.Stats) {
	status, stats := service(), embedded.Stats{}
	status.Peers = nil
	at := time.Date(2026, 5, 1, 12, 0, 0, 123456789, zone)
	for i := range n {
		id := fmt.Sprintf("%032x", i)
		queue := link.DefaultQueuePattern.Name(id, 0)
		server := fmt.Sprintf("stomp.node-%d.example.com:1234", i)
		p := link.PeerStatus{
			ID: id, Name: fmt.Sprintf("Bank number %d", i), Type: "creditors-agent", State: "active",
			Servers: []string{server}, InfoBundle: "2026-05-01", Queues: []string{queue},
			Connections: []link.Connection{
				{Direction: link.Sending, Remote: server, Queue: queue, Since: at},
				{Direction: link.Receiving, Remote: "203.0.113.255:12345", Since: at},
			},
			Counts:    link.Counts{Sent: 123456, SentBytes: 123456789, Confirmed: 123456, Received: 123456, ReceivedBytes: 123456789, Stored: 123456},
			LastError: "connect with " + server + ": dial tcp 203.0.113.255:1234: connect: connection refused", LastErrorAt: &at,
			Out: link.LinkState{Verdict: link.VerdictLinked, Since: at}, In: link.LinkState{Verdict: link.VerdictLinked, Since: at},
			LastContact: &at, Confirm: latency.Timing{Count: 123456, P50: 0.001234, P99: 0.012345},
		}
		for _, role := range []string{"peer_root", "issued", "received", "peer_server"} {
			p.Certificates = append(p.Certificates, link.Expiry{Role: role, NotAfter: testTime.In(zone), DaysLeft: 1234})
		}
		status.Peers = append(status.Peers, p)
		stats.Queues = append(stats.Queues, embedded.QueueStats{Name: queue, Depth: 12, Oldest: at, Total: 123456})
	}
	return status, stats
}

// The state of a service with 5,000 peers can be read, whatever the time zone of its machine.
func TestClientOfManyPeers(t *testing.T) {
	const n = 5000
	for _, zone := range []*time.Location{time.UTC, time.FixedZone("", 2*3600)} {
		status, stats := manyPeers(n, zone)
		s := open(t, Config{Status: func() link.Status { return status }}, func(s *Server) {
			s.cfg.Queues = func(context.Context) (embedded.Stats, error) { return stats, nil }
		})
		c := clientOf(t, linksText(t, s), false)
		costtest.Check(t, "the state with times in the zone "+status.Peers[0].Out.Since.Format("Z07:00"), func() {
			l, err := c.Links(t.Context())
			if err != nil || len(l.Peers) != n || len(l.Queues) != n {
				t.Error(err)
			}
		})
	}
}

// linksText returns the JSON of the state of a service.
func linksText(t *testing.T, s *Server) string {
	t.Helper()
	address, err := ParseAddress(s.Addresses()[0])
	if err != nil {
		t.Fatal(err)
	}
	body, err := NewClient(address).do(t.Context(), http.MethodGet, "/links", "")
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// Every time in the state of a service is in UTC, whatever the time zone of its machine, and what the service
// itself uses of the state is not changed. Each field with a time, also one that is added later, is set here.
func TestLinksInUTC(t *testing.T) {
	zone := time.FixedZone("", 2*3600)
	var status link.Status
	fill(reflect.ValueOf(&status).Elem(), time.Date(2026, 5, 1, 14, 0, 0, 0, zone))
	s := open(t, Config{Status: func() link.Status { return status }}, func(s *Server) {
		s.cfg.Queues = func(context.Context) (embedded.Stats, error) {
			return embedded.Stats{Queues: []embedded.QueueStats{{Name: "q", Oldest: testTime.In(zone)}}}, nil
		}
	})
	text := linksText(t, s)
	if n := strings.Count(text, `"2026-05-01T12:00:00Z"`); n < 10 || strings.Contains(text, "+02:00") {
		t.Errorf("%d times in UTC, and others:\n%s", n, text)
	}
	if p := status.Peers[0]; p.Out.NextAttempt.Location() != zone || p.Connections[0].Since.Location() != zone {
		t.Error("the status of the service was changed")
	}
}

// fill sets every time in v to at. A pointer gets a value, and a slice an element.
func fill(v reflect.Value, at time.Time) {
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(at))
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), at)
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), at)
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), at)
		}
	}
}

// Another program that listens at the address instead of a service can not use up the memory of the client:
// whatever it responds, reading it takes little, and a response that would take more is refused. (An empty
// structure takes a kilobyte; encoding/json goes on after a value of the wrong type.)
func TestClientCost(t *testing.T) {
	costtest.NeedsExactFigures(t)
	texts := make(map[string]string)
	for _, c := range [][2]string{
		{"peers", `{}`}, {"peers", `null`}, {"peers", `""`}, {"peers", `{"connections":[{}]}`}, {"peers", `{"certificates":[null,null,null]}`},
		{"certificates", `{}`}, {"queues", `{"oldest":"2026-01-01T00:00:00+01:23"}`}, {"troubles", `""`}, {"unknown", `1`}, {"unknown", `[]`},
	} {
		texts[strings.Join(c[:], " ")] = `{"` + c[0] + `":[` + strings.Repeat(c[1]+",", (maxResponse-100)/(len(c[1])+1)-1) + c[1] + `]}`
	}
	rejected := []byte(`{"rejected":{`)
	for i := 0; len(rejected) < maxResponse-100; i++ {
		rejected = fmt.Appendf(rejected, `"%x":0,`, i)
	}
	maps.Copy(texts, map[string]string{
		"many names":         string(rejected) + `"":0}}`,
		"without a length":   texts["peers {}"][:maxResponse/2+1],
		"many unknown names": `{` + strings.Repeat(`"A":0,`, maxResponse/6-10) + `"A":0}`,
		"many lists":         `{` + strings.Repeat(`"peers":[{}],`, maxResponse/13-10) + `"A":0}`,
		"spaces":             `{` + strings.Repeat(` `, maxResponse-10) + `}`,
		"brackets":           strings.Repeat(`[`, maxResponse),
		"a long text":        `{"id":"` + strings.Repeat("\xff", maxResponse-10) + `"}`,
		"no JSON":            strings.Repeat("x", maxResponse),
	})
	for name, text := range texts {
		c := clientOf(t, text, name == "without a length")
		costtest.Check(t, name, func() { _, _ = c.Links(t.Context()) })
	}
}

// A few values of the wrong type are refused, too, with their place.
func TestClientRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`{"peers":["",""]}`:                  "a string at byte 12",
		`{"peers":[{"queues":[{}]}]}`:        "an object at byte 21",
		`{"peers":[{"counts":{"sent":-1}}]}`: "another number",
		`<html>`:                             "invalid character '<'",
	} {
		if _, err := clientOf(t, text, false).Links(t.Context()); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "not that of a peerlink service") {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// A response of more than maxResponse bytes is refused with a reason that names its size: it is not cut
// off there and then taken for a complete one.
func TestClientLongResponse(t *testing.T) {
	for _, size := range []int{maxResponse, maxResponse + 1} {
		c := clientOf(t, (`{"id": "1234abcd"}` + strings.Repeat(" ", size))[:size], false)
		_, linksErr := c.Links(t.Context())
		_, levelErr := c.LogLevel(t.Context())
		for _, err := range []error{linksErr, levelErr} {
			refused := err != nil && strings.Contains(err.Error(), fmt.Sprintf("expected at most %d", maxResponse))
			if size == maxResponse && err != nil || size > maxResponse && !refused {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
	}
}
