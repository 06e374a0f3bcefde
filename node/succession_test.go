package node_test

import (
	"crypto"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"peerlink/node"
	"peerlink/node/nodetest"
)

// Messages for a deactivated peer are answered only if nobody else has its accounts: not when it was replaced by a node
// with its subnet, or that one by another, nor while such a replacement is interrupted. They are when the owner
// ends the link with the last of them for good, and after an interrupted replacement that is given up.
func TestCurrentSuccessor(t *testing.T) {
	t.Parallel()
	authority := nodetest.New(t, aa, "aa.example.com:1234")
	var ids []string
	next := func(keep bool) error {
		n := nodetest.New(t, ca, "ca.example.com:1234")
		defer func() { ids = append(ids, n.Identity().ID) }()
		if len(ids) == 0 {
			nodetest.Peer(t, authority, n)
			return nil
		}
		err := replace(t, authority, n, ids[len(ids)-1], keep)
		if err == nil {
			n.Sign(t, authority.Bundle(t))
			cert, readErr := os.ReadFile(n.IssuedFile(nodetest.AAID))
			_, _, regErr := authority.RegisterPeer(ctx, cert)
			err = errors.Join(readErr, regErr)
		}
		return err
	}
	checkSuccessor := func(when string, i int, want string) {
		t.Helper()
		if got, err := authority.CurrentSuccessor(ids[i]); got != want || err != nil {
			t.Errorf("%s: messages for peer %d go to %q, %v, want %q", when, i, got, err, want)
		}
	}
	for range 3 {
		if err := next(true); err != nil {
			t.Fatal(err)
		}
	}
	checkSuccessor("two replacements", 0, ids[2])
	checkSuccessor("two replacements", 1, ids[2])
	if _, err := authority.DeactivatePeer(ctx, ids[0]); err != nil {
		t.Error(err)
	}
	checkSuccessor("deactivated again", 0, ids[2])

	// Interrupted: the successor is recorded, and is no peer yet.
	file := filepath.Join(authority.Path(), "peers", ids[2], "SUCCESSOR")
	missing := "0123456789abcdef0123456789abcdef"
	record := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	record(missing + "\n")
	checkSuccessor("interrupted", 2, missing)
	if _, err := authority.DeactivatePeer(ctx, ids[2]); err != nil {
		t.Fatal(err)
	}
	for i := range ids {
		checkSuccessor("the last one is deactivated", i, "")
	}

	for _, text := range []string{"", "../x\n", ids[0] + "\n"} { // the last one is a circle
		record(text)
		if got, err := authority.CurrentSuccessor(ids[2]); err == nil {
			t.Errorf("SUCCESSOR holds %q: messages go to %q", text, got)
		}
	}
}

// A node that has the subnet of the peer that it has replaced can not be given another one: what waits for the
// earlier peer would be answered.
func TestReplacedTwice(t *testing.T) {
	t.Parallel()
	authority, agent, next := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
	nodetest.Peer(t, authority, agent)
	r := node.Replacement{Peer: agent.Identity().ID, Bundle: nodetest.ReadBundle(t, next.Bundle(t)), KeepSubnet: true}
	key := func() (crypto.Signer, error) { return authority.Key, nil }
	for i, keep := range []bool{true, true, false} {
		r.KeepSubnet = keep
		if _, err := authority.ReplacePeer(ctx, r, key); (err == nil) != keep {
			t.Errorf("replacement %d: %v", i, err)
		}
	}
	if got, err := authority.CurrentSuccessor(r.Peer); got != next.Identity().ID || err != nil {
		t.Errorf("messages go to %q, %v", got, err)
	}
}
