package link_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"peerlink/broker"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// clock is a clock that a test can set wrong.
type clock struct{ offset atomic.Int64 }

func (c *clock) Now() time.Time        { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) set(off time.Duration) { c.offset.Store(int64(off)) }

const day = 24 * time.Hour

// nodesWithClocks returns an accounting authority and a creditors agent, linked a month
// after their certificates were made, so that these stay valid when a clock is set
// back.
func nodesWithClocks(t *testing.T) (authority, agent *linktest.Node, authorityClock, agentClock *clock) {
	t.Helper()
	authority, agent = linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, agent.Node)
	clocks := []*clock{{}, {}}
	for i, n := range []*linktest.Node{authority, agent} {
		n.WriteServerCert(t, n.CertFile, n.KeyFile, 365*day)
		clocks[i].set(30 * day)
		n.Config.Now = clocks[i].Now
		n.Start()
	}
	return authority, agent, clocks[0], clocks[1]
}

// If two clocks differ by days, valid messages wait until the clocks agree again, and
// none becomes a dead letter.
func TestClocksDiffer(t *testing.T) {
	t.Parallel()
	authority, other, authorityClock, _ := nodesWithClocks(t)
	other.Put(authority, linktest.Message(t, other, authority, 1))
	authority.Take(1) // the connection is established
	authorityClock.set(27 * day)
	other.Put(authority, numbered(t, other, authority, 2, 10)...)
	linktest.Eventually(t, "the warning about the clocks", func() error {
		if text := other.Log.String(); !strings.Contains(text, "until the clocks agree") {
			return fmt.Errorf("log of the sender:\n%s", text)
		}
		return nil
	})
	authorityClock.set(30 * day)
	authority.Take(10)
	other.WaitDrained(authority, 0)
}

// A message from the future by both clocks becomes a dead letter, and does not block
// others.
func TestMessageFromTheFuture(t *testing.T) {
	t.Parallel()
	authority, other, _, agentClock := nodesWithClocks(t)
	agentClock.set(60 * day)
	early := linktest.Message(t, other, authority, 1)
	agentClock.set(30 * day)
	other.Put(authority, early, linktest.Message(t, other, authority, 2))
	if _, ok := authority.Take(1)["number 2"]; !ok {
		t.Error("got another message, want number 2, which was queued after the one from the future")
	}
	if reasons := other.WaitDrained(authority, 1); !strings.Contains(reasons[0], "in the future") {
		t.Errorf("set aside: %q", reasons)
	}
}

// A renewed certificate that is not yet valid by a wrong clock is used when the clock
// is right again, though its files do not change any more.
func TestRenewalByWrongClock(t *testing.T) {
	t.Parallel()
	authority, other, authorityClock, _ := nodesWithClocks(t)
	before := serialShown(t, other, authority)
	authorityClock.set(-3 * day)
	authority.WriteServerCert(t, authority.CertFile, authority.KeyFile, 365*day)
	linktest.Eventually(t, "the report", func() error {
		if text := authority.Log.String(); !strings.Contains(text, "the last good server certificate stays in use") {
			return fmt.Errorf("log:\n%s", text)
		}
		return nil
	})
	authorityClock.set(30 * day)
	linktest.Eventually(t, "the new certificate", func() error {
		if serialShown(t, other, authority) == before {
			return fmt.Errorf("still the old one; log:\n%s", authority.Log)
		}
		return nil
	})
}

// A refusal that quotes "in the future" from the message is not taken for a difference of the
// clocks: the message becomes a dead letter, and does not block others.
func TestRefusalQuotesMessage(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	other.Put(authority, refusedMessage(), linktest.Message(t, other, authority, 2))
	if _, ok := authority.Take(1)["number 2"]; !ok {
		t.Error("got another message, want number 2, which was queued after the refused one")
	}
	other.WaitDrained(authority, 1)
}

// refusedMessage returns a message to the authority of [linktest.Pair] that a creditors agent's
// own checks pass, and that the authority refuses.
func refusedMessage() broker.Outgoing {
	return broker.Outgoing{Type: "PrepareTransfer", ContentType: "application/json", Body: fmt.Appendf(nil, `{"type": "PrepareTransfer",
		"debtor_id": %d, "creditor_id": %d, "min_locked_amount": 1, "max_locked_amount": 2, "recipient": "R",
		"final_interest_rate_ts": "9999-12-31T23:59:59+00:00", "max_commit_delay": 100, "coordinator_type": "in the future",
		"coordinator_id": %[2]d, "coordinator_request_id": 1, "ts": %q}`, int64(0x1234abcd_00_000001), int64(0x000001_01_00000000), time.Now().UTC().Format(time.RFC3339))}
}
