package link_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/link"
	"peerlink/link/linktest"
)

// register registers at n the peer certificate that the peer has issued to it.
func register(t *testing.T, n, peer *linktest.Node) {
	t.Helper()
	cert, err := os.ReadFile(filepath.Join(peer.Path(), "peers", n.Identity().ID, "peercert.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := n.RegisterPeer(t.Context(), cert); err != nil {
		t.Fatal(err)
	}
}

// The commonest mistake of peering, a step that is missing, is named by each node that can know of
// it, with the command that ends it. When the step has been made, both are linked, without a restart.
func TestVerdictNotRegistered(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct {
		name  string
		first func(authority, other *linktest.Node) (has, lacks *linktest.Node)
	}{
		{"authority has registered", func(authority, other *linktest.Node) (has, lacks *linktest.Node) { return authority, other }},
		{"agent has registered", func(authority, other *linktest.Node) (has, lacks *linktest.Node) { return other, authority }},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			authority, other := linktest.New(t, aa), linktest.New(t, ca)
			has, lacks := kind.first(authority, other)
			has.Start()
			lacks.Start()

			has.Sign(t, lacks.Bundle(t)) // only one has signed
			remedy(t, outBecomes(t, has, lacks, link.VerdictSigned, "no peer certificate").Out, "peerlink peer register")

			lacks.Sign(t, has.Bundle(t)) // both have signed
			remedy(t, outBecomes(t, lacks, has, link.VerdictSigned, "no peer certificate").Out, "peerlink peer register")

			register(t, has, lacks) // one has registered
			st := outBecomes(t, has, lacks, link.VerdictNotRegistered, "the peer has not registered the certificate")
			remedy(t, st.Out, "peerlink peer register peercert.crt")
			remedy(t, st.Out, "the owner of "+lacks.Identity().ID)
			inBecomes(t, has, lacks, link.VerdictNotRegistered, "")
			attempt := inBecomes(t, lacks, has, link.VerdictNotRegistered, "is not registered")
			remedy(t, attempt.In, "peerlink peer register CERT")
			if attempt.LastContact == nil {
				t.Error("an attempt of the peer is no contact")
			}
			remedy(t, outBecomes(t, lacks, has, link.VerdictNotRegistered, "is not registered").Out, "peerlink peer register CERT")

			register(t, lacks, has)
			for _, pair := range [][2]*linktest.Node{{has, lacks}, {lacks, has}} {
				outBecomes(t, pair[0], pair[1], link.VerdictLinked, "")
				inBecomes(t, pair[0], pair[1], link.VerdictLinked, "")
			}
		})
	}
}

// A peer whose directory has lost this node is told apart from one that has not registered it.
func TestVerdictUnknownAtPeer(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	outBecomes(t, authority, other, link.VerdictLinked, "")
	if err := other.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(other.Path(), "peers", authority.Identity().ID)); err != nil {
		t.Fatal(err)
	}
	other.Start()
	remedy(t, outBecomes(t, authority, other, link.VerdictNotRegistered, "has no peer with the ID of this node").Out, "peerlink peer list")
}

func remedy(t *testing.T, s link.LinkState, want string) {
	t.Helper()
	if !strings.Contains(s.Remedy, want) {
		t.Errorf("the remedy of %s is %q, expected one with %q", s.Verdict, s.Remedy, want)
	}
}
