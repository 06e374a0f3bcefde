package smp

import (
	"fmt"
	"slices"
	"testing"
)

// Invariant: each of the two parts of a creditors agent, for creditors and for
// trade, gets exactly its own messages, distinguished by the account and, for
// transfers, by the coordinator.
func TestTradeHeaders(t *testing.T) {
	all := samples(t)
	ca, _ := peers(t, "000008", "000001", "")
	const (
		ordinary = 0x0000017700000001 // bits 32 to 39 not zero
		edge     = 0x0000010100000000
		trader   = 0x00000100ffffffff
	)
	for _, c := range []struct {
		typ              string
		creditor         int64
		coordinator      string
		creditors, trade bool
	}{
		{AccountUpdate, ordinary, "", true, false},
		{AccountUpdate, edge, "", true, false},
		{AccountUpdate, trader, "", false, true},
		{AccountPurge, trader, "", false, true},
		{RejectedConfig, trader, "", false, true},
		{PreparedTransfer, ordinary, "direct", true, false},
		{PreparedTransfer, trader, "direct", false, true},
		{PreparedTransfer, ordinary, "agent", false, true},
		{RejectedTransfer, ordinary, "agent", false, true},
		{FinalizedTransfer, trader, "agent", false, true},
		{AccountTransfer, ordinary, "direct", true, false},
		{AccountTransfer, ordinary, "other", true, false},
		{AccountTransfer, ordinary, "agent", true, true},
		{AccountTransfer, trader, "agent", false, true},
		{AccountTransfer, trader, "direct", false, true},
	} {
		s := all[c.typ].with("creditor_id", fmt.Sprint(c.creditor))
		if c.coordinator != "" {
			s = s.with("coordinator_type", fmt.Sprintf("%q", c.coordinator))
		}
		if s["coordinator_id"] != "" {
			s = s.with("coordinator_id", fmt.Sprint(c.creditor))
		}
		r, err := ca.Incoming(c.typ, ContentType, s.body(), arrival)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		if h := r.Headers; !h.AtCreditorsAgent || h.CACreditors != c.creditors || h.CATrade != c.trade {
			t.Errorf("%+v: headers are %+v", c, h)
		}
	}
}

// Invariant: headers have one order, and iteration may stop anywhere.
func TestHeadersAll(t *testing.T) {
	h := Headers{
		MessageType: PreparedTransfer, DebtorID: 1, CreditorID: 2, CoordinatorType: agent, CoordinatorID: 3,
		AtCreditorsAgent: true, CATrade: true,
	}
	want := []string{
		"message-type PreparedTransfer", "debtor-id 1", "creditor-id 2",
		"ca-creditors false", "ca-trade true", "coordinator-id 3", "coordinator-type agent",
	}
	for stop := range len(want) + 1 {
		var got []string
		for name, v := range h.All() {
			if got = append(got, fmt.Sprint(name, " ", v)); len(got) == stop {
				break
			}
		}
		if stop == 0 {
			stop = len(want)
		}
		if !slices.Equal(got, want[:stop]) {
			t.Errorf("headers are %q, expected %q", got, want[:stop])
		}
	}
	h.AtCreditorsAgent, h.CoordinatorType = false, ""
	n := 0
	for range h.All() {
		n++
	}
	if n != 3 {
		t.Errorf("%d headers, expected 3", n)
	}
}
