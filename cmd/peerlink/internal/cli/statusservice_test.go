package cli

import (
	"strings"
	"testing"
	"time"

	"peerlink/admin"
	"peerlink/link"
)

// Messages that have waited for long, for a peer or for an application, are advice to the operator;
// those that have just come are not, nor are those for a peer that this node has suspended.
func TestMessagesStuck(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	service := func(queue, state string, oldest *time.Time) *serviceStatus {
		resting := link.LinkState{Verdict: link.VerdictSuspended, Since: now.Add(-time.Hour)}
		l := &admin.Links{At: now, Ready: true, Queues: []admin.Queue{{Name: queue, Messages: 3, Oldest: oldest}}}
		l.Peers = []link.PeerStatus{{ID: "1234abcd", Name: "Harbour Bank", State: state, Queues: []string{"peer.1234abcd.0"}, Out: resting, In: resting}}
		s := new(serviceStatus)
		s.read(l)
		return s
	}
	for _, c := range []struct {
		queue, state string
		oldest       time.Duration
		want         string // "" if there is nothing to do
	}{
		{"peer.1234abcd.0", "active", time.Minute, ""},
		{"peer.1234abcd.0", "suspended", 16 * time.Minute, ""},
		{"peer.1234abcd.0", "active", 16 * time.Minute, "3 messages wait for 1234abcd (Harbour Bank), the oldest for 16 min, and the link is suspended for 1 h"},
		{"accounts_in", "active", 16 * time.Minute, ""},
		{"accounts_in", "suspended", 2 * time.Hour, "3 messages wait in the inbox accounts_in, the oldest for 2 h"},
	} {
		got := strings.Join(service(c.queue, c.state, ago(c.oldest)).steps(), "\n")
		if c.want == "" && got != "" || !strings.HasPrefix(got, c.want) || strings.Contains(got, "\n") {
			t.Errorf("%s, %s, %v: %q, expected %q", c.queue, c.state, c.oldest, got, c.want)
		}
	}
}

// With RabbitMQ, whose queues the service does not count, messages set aside since its start are
// advice. A service that does not answer or is not ready is advice, too.
func TestServiceSteps(t *testing.T) {
	good := link.LinkState{Verdict: link.VerdictLinked}
	l := &admin.Links{Ready: true}
	l.Peers = []link.PeerStatus{{ID: "1234abcd", Out: good, In: good, Counts: link.Counts{SetAside: 1}}}
	rabbit, unready := new(serviceStatus), new(serviceStatus)
	rabbit.read(l)
	unready.read(&admin.Links{Problems: []string{"no disk"}, Warnings: []string{"queue q: it expires"}})
	for want, s := range map[string]*serviceStatus{
		"1 message for 1234abcd was set aside since the service started":     rabbit,
		"the service is not ready: no disk\nlook at the broker: queue q":     unready,
		"a service is running, and does not answer at 127.0.0.1:1 (refused)": {Admin: "127.0.0.1:1", Error: "refused"},
	} {
		if got := strings.Join(s.steps(), "\n"); !strings.HasPrefix(got, want) {
			t.Errorf("%q, expected %q", got, want)
		}
	}
}
