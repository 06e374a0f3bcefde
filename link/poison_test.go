package link_test

import (
	"fmt"
	"testing"
	"time"

	"peerlink/broker"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// issued returns a message that only the peer refuses: an agent does not issue.
func issued(n int) broker.Outgoing {
	return broker.Outgoing{Type: "PrepareTransfer", ContentType: "application/json", Body: fmt.Appendf(nil,
		`{"type": "PrepareTransfer", "debtor_id": %d, "creditor_id": %d, "coordinator_type": "other", "coordinator_id": 1, "coordinator_request_id": %d,
		"min_locked_amount": 1, "max_locked_amount": 1, "recipient": "x", "final_interest_rate_ts": "2026-01-01T00:00:00Z", "max_commit_delay": 1, "ts": "2026-01-01T00:00:00Z"}`,
		int64(0x1234abcd_00_000001), int64(0x000001_01_00000000), n)}
}

// Several refused messages, consecutive or with others between them, block the rest no
// longer than one would: only the pauses before the same message is sent again grow.
func TestPoisonInARow(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	other.Config.RetryMax = 10 * time.Minute // no pause may come near to it
	authority.Start()
	other.Start()
	const count = 8
	for n := range count {
		other.Put(authority, issued(n))
	}
	for n := range count {
		other.Put(authority, linktest.Message(t, other, authority, n), issued(count+n))
	}
	authority.Take(count)
	other.WaitDrained(authority, 2*count)
}
