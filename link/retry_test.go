package link_test

import (
	"fmt"
	"strings"
	"testing"

	"peerlink/broker"
	"peerlink/link/linktest"
)

// A message that has become a dead letter after refusals by the peer, and that an
// operator sends again, is a new message: the running service sends it as often as the
// first time. If the peer accepts it now, it is delivered.
func TestRetry(t *testing.T) {
	t.Parallel()
	for name, on := range bothBrokers {
		t.Run(name, func(t *testing.T) { testRetry(t, on) })
	}
}

func testRetry(t *testing.T, on linktest.BrokerSetup) {
	authority, other := linktest.PairOn(t, ca, linktest.Embedded, on)
	other.Put(authority, linktest.Message(t, other, authority, 1), issued(1)) // valid, but refused by the peer
	authority.Take(1)
	shelf := other.Config.Broker.(broker.DeadLetters)
	refusals := func() int { return strings.Count(other.Log.String(), `msg="not sending any more"`) }
	for round, before := 0, 0; round < 3; round++ {
		reasons := other.WaitDrained(authority, 1)
		if !strings.Contains(reasons[0], "coordinator") {
			t.Fatalf("set aside: %q", reasons)
		}
		linktest.Eventually(t, fmt.Sprint("offers in round ", round), func() error {
			if n := refusals() - before; n != 3 {
				return fmt.Errorf("the message was sent %d times, want 3", n)
			}
			return nil
		})
		before += 3
		var ids []string
		for m, err := range shelf.List(t.Context(), linktest.QueueTo(authority)) {
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, m.ID)
		}
		if n, err := shelf.Retry(t.Context(), linktest.QueueTo(authority), ids); err != nil || n != 1 {
			t.Fatalf("%d messages were retried, %v", n, err)
		}
		other.Put(authority, linktest.Message(t, other, authority, 2+round))
		authority.Take(1)
	}
}
