package node_test

import (
	"bytes"
	"crypto"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/nodetest"
	"peerlink/node/pki"
)

// revokingBundles returns two info-bundles of a node: one without, and a later one with a revoked key.
func revokingBundles(t *testing.T, n *nodetest.Node, revoked string) (older, newer *infobundle.Bundle) {
	t.Helper()
	older = nodetest.ReadBundle(t, n.Bundle(t))
	if _, err := n.RevokeServerKey(ctx, revoked); err != nil {
		t.Fatal(err)
	}
	return older, nodetest.ReadBundle(t, n.Bundle(t))
}

// What a peer has revoked stays revoked if the peer is removed or replaced, and signed again: an older info-bundle
// of the same root key is refused, and a later one without the list does not make the key valid again.
func TestRevokedAfterRemoval(t *testing.T) {
	t.Parallel()
	key := "sha256:" + strings.Repeat("7", 64)
	for name, end := range map[string]func(n *nodetest.Node, key func() (crypto.Signer, error)) error{
		"removed": func(n *nodetest.Node, _ func() (crypto.Signer, error)) error {
			_, err := n.RemovePeer(ctx, nodetest.AAID)
			return err
		},
		"removed twice": func(n *nodetest.Node, key func() (crypto.Signer, error)) error {
			pinned := filepath.Join(n.Path(), "peers", nodetest.AAID)
			b := nodetest.ReadBundle(t, nodetest.New(t, aa, "other.example.com:1234").Bundle(t))
			for range 2 {
				if _, err := n.RemovePeer(ctx, nodetest.AAID); err != nil {
					return err
				}
				if _, err := n.SignPeer(ctx, b, key); err != nil {
					return err
				}
				if _, err := os.Stat(filepath.Join(pinned, "revoked-keys.txt")); err == nil {
					t.Error("the list of one root key counts for another one")
				}
			}
			_, err := n.RemovePeer(ctx, nodetest.AAID)
			return err
		},
		"replaced": func(n *nodetest.Node, key func() (crypto.Signer, error)) error {
			next := nodetest.ReadBundle(t, nodetest.New(t, aa, "aa.example.com:1234").Bundle(t))
			_, err := n.ReplacePeer(ctx, node.Replacement{Peer: nodetest.AAID, Bundle: next}, key)
			return err
		},
	} {
		agent, authority := nodetest.New(t, da, "da.example.com:1234"), nodetest.New(t, aa, "aa.example.com:1234")
		signer := func() (crypto.Signer, error) { return agent.Key, nil }
		older, newer := revokingBundles(t, authority, key)
		if _, err := agent.SignPeer(ctx, newer, signer); err != nil {
			t.Fatal(err)
		}
		if err := end(agent, signer); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		accept := func(b *infobundle.Bundle) error {
			_, err := agent.SignPeer(ctx, b, signer)
			if name == "replaced" {
				_, err = agent.ReplacePeer(ctx, node.Replacement{Peer: nodetest.AAID, Bundle: b}, signer)
			}
			return err
		}
		if err := accept(older); err == nil || !strings.Contains(err.Error(), "a newer one, dated") {
			t.Errorf("%s: the older bundle: %v", name, err)
		}
		if err := os.Remove(filepath.Join(authority.Path(), "nodeinfo", "revoked-keys.txt")); err != nil {
			t.Fatal(err)
		}
		if err := accept(nodetest.ReadBundle(t, authority.Bundle(t))); err != nil {
			t.Fatalf("%s: a later bundle: %v", name, err)
		}
		p, err := agent.Peer(nodetest.AAID)
		if err != nil {
			t.Fatal(err)
		}
		if _, revoked := p.Revoked[key]; !revoked || pki.Fingerprint(p.Root.PublicKey) != pki.Fingerprint(older.Root.PublicKey) {
			t.Errorf("%s: the key is not revoked any more", name)
		}
	}
}

// A peer with which there was a link is not removed after its replacement: a debtors agent would forget the earlier
// root key, and what waits, and could get another authority.
func TestReplacedPeerStays(t *testing.T) {
	t.Parallel()
	agent, earlier, next := nodetest.New(t, da, "da.example.com:1234"), nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, aa, "aa.example.com:1234")
	nodetest.Peer(t, agent, earlier)
	if err := replace(t, agent, next, nodetest.AAID, false); err != nil {
		t.Fatal(err)
	}
	if _, err := agent.RemovePeer(ctx, nodetest.AAID); err == nil {
		t.Error("the peer is removed")
	}
	// Replaced by mistake: the earlier one comes back.
	if err := replace(t, agent, earlier, nodetest.AAID, false); err != nil {
		t.Error(err)
	}
	p, err := agent.Peer(nodetest.AAID)
	if err != nil || !bytes.Equal(p.Root.Raw, nodetest.ReadBundle(t, earlier.Bundle(t)).Root.Raw) {
		t.Errorf("the peer is not the earlier one: %v", err)
	}
}

// The subnet that a wrong node has got in place of an earlier peer is not lost with it: the node is not removed, and
// replacing it hands the subnet on to the right one, although there was never a link with it.
func TestSubnetHandedOn(t *testing.T) {
	t.Parallel()
	authority, earlier := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
	nodetest.Peer(t, authority, earlier)
	wrong, right := nodetest.New(t, ca, "ca.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
	if err := replace(t, authority, wrong, earlier.Identity().ID, true); err != nil {
		t.Fatal(err)
	}
	if _, err := authority.RemovePeer(ctx, wrong.Identity().ID); err == nil {
		t.Fatal("the wrong node is removed")
	}
	for range 2 { // as if it had been interrupted
		if err := replace(t, authority, right, wrong.Identity().ID, true); err != nil {
			t.Fatal(err)
		}
	}
	was, err := authority.Peer(earlier.Identity().ID)
	if err != nil {
		t.Fatal(err)
	}
	p, err := authority.Peer(right.Identity().ID)
	if err != nil || p.Subnet != was.Subnet {
		t.Errorf("the right node has the subnet %+v, %v, want %s", p, err, was.Subnet)
	}
	if successor, err := authority.CurrentSuccessor(earlier.Identity().ID); successor != right.Identity().ID || err != nil {
		t.Errorf("what waits for the earlier peer goes to %q, %v, want the right node", successor, err)
	}
	// With another subnet than the earlier peer's, the wrong node can be removed.
	other := nodetest.New(t, ca, "ca.example.com:1234")
	if err := replace(t, authority, other, right.Identity().ID, false); err != nil {
		t.Fatal(err)
	}
	if _, err := authority.RemovePeer(ctx, other.Identity().ID); err != nil {
		t.Error(err)
	}
	if err := replace(t, authority, nodetest.New(t, ca, "ca.example.com:1234"), right.Identity().ID, true); err != nil {
		t.Error(err)
	}
}
