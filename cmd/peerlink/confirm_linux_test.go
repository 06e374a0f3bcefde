package main

import (
	"context"
	"strings"
	"testing"

	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// On a terminal, a peer is deactivated only after the answer yes: another answer is asked for again, at
// most three times, and changes nothing. With --yes, nothing is asked.
func TestConfirmDeactivation(t *testing.T) {
	t.Parallel()
	aa := nodetest.New(t, nodetype.AccountingAuthority, "aa.example.com:1234")
	ca := nodetest.New(t, nodetype.CreditorsAgent, "ca.example.com:1234")
	nodetest.Peer(t, aa, ca)
	id := aa.Identity().ID
	if err := ca.SetPeerName(context.Background(), id, "Harbour Bank"); err != nil {
		t.Fatal(err)
	}
	deactivated := func() bool {
		t.Helper()
		p, err := ca.Peer(id)
		if err != nil {
			t.Fatal(err)
		}
		return p.Deactivated != ""
	}
	line := []string{"peer", "deactivate", "-C", ca.Path(), id[:4]}
	for _, answers := range []string{"no\n", "y\nperhaps\nmaybe\n", "\x04"} {
		s := startOnTerminal(t, t.TempDir(), line...)
		s.expect("Peer " + id + " (Harbour Bank), accounting-authority: its connections are cut")
		s.typeText(answers)
		if code := s.expectEnd(); code != 1 || deactivated() {
			t.Errorf("answers %q: exit code %d, deactivated: %v", answers, code, deactivated())
		}
		s.expect("the peer is as it was")
	}
	s := startOnTerminal(t, t.TempDir(), line...)
	s.expect("Type yes or no")
	s.typeText("what?\nYES\n")
	if code := s.expectEnd(); code != 0 || !deactivated() {
		t.Errorf("exit code %d\n%s", code, s.shown())
	}
	// Nothing is left to be asked.
	s = startOnTerminal(t, t.TempDir(), line...)
	if code := s.expectEnd(); code != 0 || strings.Contains(s.shown(), "Type yes") {
		t.Errorf("deactivated already: exit code %d\n%s", code, s.shown())
	}
	other := nodetest.New(t, nodetype.CreditorsAgent, "ca.example.com:1234")
	nodetest.Peer(t, aa, other)
	s = startOnTerminal(t, t.TempDir(), "peer", "deactivate", "-C", other.Path(), id, "--yes")
	if code := s.expectEnd(); code != 0 || strings.Contains(s.shown(), "Type yes") {
		t.Errorf("--yes: exit code %d\n%s", code, s.shown())
	}
}
