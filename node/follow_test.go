package node_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/nodetest"
)

// moveTo makes a node's next info-bundle name another server.
func moveTo(t *testing.T, n *nodetest.Node, server string) {
	t.Helper()
	manifest := filepath.Join(n.Path(), "nodeinfo", "stomp.toml")
	if err := os.WriteFile(manifest, node.EncodeStompTOML(n.Identity().Type, []string{server}), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A peer's newer bundle replaces its nodeinfo and nothing else, without a key. Any other bundle
// changes nothing, and the error is specific.
func TestUpdatePeer(t *testing.T) {
	a, c := nodetest.New(t, aa, "old.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
	nodetest.Peer(t, a, c)
	oldFile := a.Bundle(t)
	c.Sign(t, oldFile)
	old := nodetest.ReadBundle(t, oldFile)
	moveTo(t, a, "new.example.com:4321")
	newer := nodetest.ReadBundle(t, a.Bundle(t))
	useless := *newer
	useless.Nodeinfo = []infobundle.File{{Name: infobundle.StompTOML, Data: []byte("servers = []")}, {Name: infobundle.UpdatedAt, Data: []byte("9999-01-01")}}

	for _, tt := range []struct {
		name    string
		bundle  *infobundle.Bundle
		updated bool
		want    error
		server  string
	}{
		{"the one that is known", old, false, nil, "old.example.com:1234"},
		{"another node in the same name", nodetest.ReadBundle(t, nodetest.New(t, aa, "evil.example.com:1").Bundle(t)), false, node.ErrOtherRoot, "old.example.com:1234"},
		{"without servers", &useless, false, infobundle.ErrInvalid, "old.example.com:1234"},
		{"newer", newer, true, nil, "new.example.com:4321"},
		{"again", newer, false, nil, "new.example.com:4321"},
		{"older", old, false, nil, "new.example.com:4321"},
	} {
		before := snapshot(t, c.Path())
		updated, err := c.ReplaceNodeinfo(ctx, tt.bundle)
		if updated != tt.updated || !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, %v; want %v, %v", tt.name, updated, err, tt.updated, tt.want)
		}
		if changed := snapshot(t, c.Path()) != before; changed != tt.updated {
			t.Errorf("%s: the directory has changed: %v", tt.name, changed)
		}
		if p, err := c.Dir.Peer(nodetest.AAID); err != nil || p.Stomp.Servers[0] != tt.server || p.Subnet == "" || p.SubCA == nil {
			t.Errorf("%s: the peer is %+v (%v), want the server %s", tt.name, p, err, tt.server)
		}
	}

	if _, err := a.ReplaceNodeinfo(ctx, nodetest.ReadBundle(t, nodetest.New(t, ca, "x.example.com:1").Bundle(t))); !errors.Is(err, node.ErrUnknownPeer) {
		t.Errorf("a stranger's bundle: %v, want ErrUnknownPeer", err)
	}
	if _, err := c.DeactivatePeer(ctx, nodetest.AAID); err != nil {
		t.Fatal(err)
	}
	moveTo(t, a, "newest.example.com:1")
	before := snapshot(t, c.Path())
	if _, err := c.ReplaceNodeinfo(ctx, nodetest.ReadBundle(t, a.Bundle(t))); !errors.Is(err, node.ErrDeactivated) {
		t.Errorf("a deactivated peer's bundle: %v, want ErrDeactivated", err)
	}
	if snapshot(t, c.Path()) != before {
		t.Error("a deactivated peer was updated")
	}
}

// An update waits for the directory's lock. If its context ends meanwhile, it changes nothing.
func TestUpdatePeerWaits(t *testing.T) {
	a, c := nodetest.New(t, aa, "old.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
	nodetest.Peer(t, a, c)
	moveTo(t, a, "new.example.com:4321")
	b := nodetest.ReadBundle(t, a.Bundle(t))
	err := c.Locked(ctx, func(*node.Locked) error {
		before := snapshot(t, c.Path())
		ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		if updated, err := c.ReplaceNodeinfo(ctx, b); updated || err == nil {
			t.Errorf("updated a locked directory: %v, %v", updated, err)
		}
		if snapshot(t, c.Path()) != before {
			t.Error("the directory has changed")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A peer is followed by default. SetFollow can be repeated, and a running service notices the
// change.
func TestSetFollow(t *testing.T) {
	a, c := nodetest.New(t, aa, "a.example.com:1"), nodetest.New(t, ca, "c.example.com:1")
	nodetest.Peer(t, a, c)
	original := snapshot(t, c.Path())
	for i, follow := range []bool{true, false, false, true, true} {
		before, was := c.Stamp(nodetest.AAID), !peer(t, c).NoFollow
		if err := c.SetFollow(ctx, nodetest.AAID, follow); err != nil {
			t.Fatal(err)
		}
		if got := !peer(t, c).NoFollow; got != follow {
			t.Errorf("step %d: followed is %v, want %v", i, got, follow)
		}
		if changed := c.Stamp(nodetest.AAID) != before; changed != (was != follow) {
			t.Errorf("step %d: the stamp has changed: %v", i, changed)
		}
	}
	if snapshot(t, c.Path()) != original {
		t.Error("SetFollow has left changes in the directory")
	}
	if err := c.SetFollow(ctx, "00000000", false); !errors.Is(err, node.ErrUnknownPeer) {
		t.Errorf("an unknown peer: %v", err)
	}
}

func peer(t *testing.T, n *nodetest.Node) *node.Peer {
	t.Helper()
	p, err := n.Dir.Peer(nodetest.AAID)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The newest bundle is published; a bundle that was signed elsewhere and is filed
// late does not replace a newer one.
func TestPublishedBundle(t *testing.T) {
	a := nodetest.New(t, aa, "old.example.com:1234")
	published := func() string { return nodetest.ReadBundle(t, a.PublishedBundle()).UpdatedAt() }
	file := func(path string) {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Locked(ctx, func(l *node.Locked) error { return l.PublishBundle(data) }); err != nil {
			t.Fatal(err)
		}
	}
	old := a.Bundle(t)
	oldDate := nodetest.ReadBundle(t, old).UpdatedAt()
	if got := published(); got != oldDate {
		t.Errorf("published: %s, want %s", got, oldDate)
	}
	newer := a.Bundle(t)
	date := nodetest.ReadBundle(t, newer).UpdatedAt()
	file(old)
	if got := published(); got != date {
		t.Errorf("published: %s, want %s", got, date)
	}
	// An existing file that is not a bundle of this node is replaced.
	for _, junk := range []string{"", "junk"} {
		if err := os.WriteFile(a.PublishedBundle(), []byte(junk), 0o644); err != nil {
			t.Fatal(err)
		}
		file(old)
		if got := published(); got != oldDate {
			t.Errorf("published: %s, want %s", got, oldDate)
		}
	}
	if err := a.Locked(ctx, func(l *node.Locked) error { return l.PublishBundle([]byte("junk")) }); !errors.Is(err, infobundle.ErrInvalid) {
		t.Errorf("junk was published: %v", err)
	}
}
