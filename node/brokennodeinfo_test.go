package node_test

import (
	"crypto"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/nodetest"
)

// brokenNodeinfo are files that the reader of the directory refuses, by the fault.
var brokenNodeinfo = map[string]infobundle.File{
	"list of keys is a folder": {Name: "revoked-keys.txt/x", Data: []byte("x")},
	"list of keys too large":   {Name: "revoked-keys.txt", Data: []byte(strings.Repeat("# x\n", 20_000))},
	"date is a folder":         {Name: "updated-at.txt/x", Data: []byte("x")},
	"date too large":           {Name: "updated-at.txt", Data: []byte("2026-01-01" + strings.Repeat(" ", 1_200_000))},
	"stomp.toml is a folder":   {Name: "stomp.toml/x", Data: []byte("x")},
	"stomp.toml too large":     {Name: "stomp.toml", Data: []byte(strings.Repeat("# x\n", 20_000))},
}

// breakNodeinfo replaces a file in the nodeinfo of the peer, as earlier versions took it over.
func breakNodeinfo(t *testing.T, n *nodetest.Node, peer string, f infobundle.File) {
	t.Helper()
	folder := filepath.Join(n.Path(), "peers", peer, "nodeinfo")
	name, _, _ := strings.Cut(f.Name, "/")
	path := filepath.Join(folder, filepath.FromSlash(f.Name))
	err := errors.Join(os.RemoveAll(filepath.Join(folder, name)), os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, f.Data, 0o644))
	if err != nil {
		t.Fatal(err)
	}
}

// No info-bundle is accepted whose files could not be read from the directory afterwards: with one, its sender
// could make every command for the peer fail.
func TestBundleMustBeReadable(t *testing.T) {
	t.Parallel()
	n := nodetest.New(t, ca, "ca.example.com:1234")
	n.Bundle(t) // makes the CSR
	var parts [][]byte
	for _, name := range []string{"root-ca.crt", "db/root-ca.csr"} {
		data, err := os.ReadFile(filepath.Join(n.Path(), filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, data)
	}
	stomp := infobundle.File{Name: "stomp.toml", Data: node.EncodeStompTOML(ca, []string{"ca.example.com:1234"})}
	create := func(f infobundle.File) error {
		files := []infobundle.File{f}
		if !strings.HasPrefix(f.Name, "stomp.toml") {
			files = append(files, stomp)
		}
		_, err := infobundle.Create(parts[0], parts[1], files, n.Key)
		return err
	}
	if err := create(infobundle.File{Name: "revoked-keys.txt", Data: []byte(strings.Repeat("# x\n", 16<<10))}); err != nil {
		t.Errorf("a list of the maximum size: %v", err)
	}
	broken := maps.Clone(brokenNodeinfo)
	broken["name in capitals"] = infobundle.File{Name: "Revoked-Keys.txt", Data: []byte("x")}
	for fault, f := range broken {
		if err := create(f); !errors.Is(err, infobundle.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", fault, err)
		}
	}
}

// The link with a peer can be ended, paused and replaced, and a newer info-bundle taken over, whatever its nodeinfo
// holds: that comes from the peer.
func TestBrokenNodeinfo(t *testing.T) {
	t.Parallel()
	nextAgent, nextAuthority := nodetest.New(t, ca, "ca.example.com:1234"), nodetest.New(t, aa, "aa.example.com:1234")
	pair := func() (authority, agent *nodetest.Node) {
		authority, agent = nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
		nodetest.Peer(t, authority, agent)
		return authority, agent
	}
	for _, kind := range []string{"is a folder", "too large"} {
		authority, agent := pair()
		ended, other := pair()
		id := agent.Identity().ID
		for _, command := range []struct {
			name string
			at   *nodetest.Node
			peer string
			run  func() error
		}{
			{"suspend", authority, id, func() error { return authority.SuspendPeer(ctx, id, "x") }},
			{"resume", authority, id, func() error { changed, err := authority.ResumePeer(ctx, id); return unless(changed, err) }},
			{"follow", authority, id, func() error { return authority.SetFollow(ctx, id, false) }},
			{"sign", authority, id, func() error { return unless(authority.Sign(t, agent.Bundle(t)).Updated, nil) }},
			{"newer bundle", authority, id, func() error {
				updated, err := authority.ReplaceNodeinfo(ctx, nodetest.ReadBundle(t, agent.Bundle(t)))
				return unless(updated, err)
			}},
			{"replace agent", authority, id, func() error { return replace(t, authority, nextAgent, id, true) }},
			{"replace authority", agent, nodetest.AAID, func() error { return replace(t, agent, nextAuthority, nodetest.AAID, false) }},
			{"deactivate", ended, other.Identity().ID, func() error {
				changed, err := ended.DeactivatePeer(ctx, other.Identity().ID)
				return unless(changed, err)
			}},
			{"remove", other, nodetest.AAID, func() error {
				err := os.Remove(filepath.Join(other.Path(), "peers", nodetest.AAID, "sub-ca.crt"))
				_, removeErr := other.RemovePeer(ctx, nodetest.AAID)
				return errors.Join(err, removeErr)
			}},
		} {
			for fault, f := range brokenNodeinfo {
				if strings.HasSuffix(fault, kind) {
					breakNodeinfo(t, command.at, command.peer, f)
				}
			}
			if err := command.run(); err != nil {
				t.Errorf("%s, a file %s: %v", command.name, kind, err)
			}
		}
	}
}

func unless(done bool, err error) error {
	if err == nil && !done {
		err = errors.New("nothing was changed")
	}
	return err
}

// replace replaces a peer by the next node.
func replace(t *testing.T, n, next *nodetest.Node, id string, keep bool) error {
	t.Helper()
	r := node.Replacement{Peer: id, Bundle: nodetest.ReadBundle(t, next.Bundle(t)), KeepSubnet: keep}
	_, err := n.ReplacePeer(ctx, r, func() (crypto.Signer, error) { return n.Key, nil })
	return err
}

// listOf writes the list of revoked keys of a node: count keys, the first with a number.
func listOf(t *testing.T, n *nodetest.Node, first, count int) {
	t.Helper()
	var list strings.Builder
	for i := range count {
		fmt.Fprintf(&list, "sha256:%064x\n", first+i)
	}
	if err := os.WriteFile(filepath.Join(n.Path(), "nodeinfo", "revoked-keys.txt"), []byte(list.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Whoever had the root key of a peer can not block the revocations of its owner: all keys in the newest info-bundle
// count, although as many as are remembered were revoked before, and the peer says that not all are remembered. With
// another root key nothing that the earlier one has signed counts.
func TestRevokedByThief(t *testing.T) {
	t.Parallel()
	authority, agent := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
	listOf(t, authority, 1000, node.MaxRevokedKeys) // the thief's
	nodetest.Peer(t, authority, agent)
	listOf(t, authority, 5000, node.MaxRevokedKeys) // the owner's
	agent.Sign(t, authority.Bundle(t))
	p := peer(t, agent)
	for _, first := range []int{1000, 5000} {
		for i := range node.MaxRevokedKeys {
			if _, ok := p.Revoked[fmt.Sprintf("sha256:%064x", first+i)]; !ok {
				t.Fatalf("key %d does not count", first+i)
			}
		}
	}
	if p.NotRemembered != node.MaxRevokedKeys {
		t.Errorf("%d keys are not remembered", p.NotRemembered)
	}

	next := nodetest.New(t, aa, "aa.example.com:1234")
	listOf(t, next, 9000, 1)
	if err := replace(t, agent, next, authority.Identity().ID, false); err != nil {
		t.Fatal(err)
	}
	if p := peer(t, agent); len(p.Revoked) != 1 || p.NotRemembered != 0 {
		t.Errorf("after the replacement, %d keys are revoked, %d are not remembered", len(p.Revoked), p.NotRemembered)
	}
}
