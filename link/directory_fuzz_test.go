package link_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/link"
	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// Whatever bytes a file of a node's directory contains, reading it returns an error, or
// a peer whose broker objects have usable names; it never panics. No content written by
// the peer hides it, and nothing undoes its deactivation.
func FuzzDirectory(f *testing.F) {
	const stompTOML, updatedAt = "nodeinfo/" + infobundle.StompTOML, "nodeinfo/" + infobundle.UpdatedAt
	// The files that are read. Of others, such as ACTIVE, only the existence matters.
	ofNode := []string{"db/nodetype", "db/nodeid", "root-ca.crt", "creditors-subnet.txt", "debtors-subnet.txt"}
	ofPeer := []string{
		"nodetype.txt", "queues.txt", "subnet.txt", "masq-subnet.txt", "DEACTIVATED", "SUSPENDED",
		"root-ca.crt", "peercert.crt", "sub-ca.crt", stompTOML, updatedAt,
	}
	authority, creditors, debtors := fixedNode(f, aa), fixedNode(f, ca), fixedNode(f, da)
	nodetest.Peer(f, authority, creditors)
	nodetest.Peer(f, authority, debtors)
	if _, err := debtors.DeactivatePeer(context.Background(), nodetest.AAID); err != nil {
		f.Fatal(err)
	}
	if err := creditors.SetQueues(context.Background(), nodetest.AAID, 3); err != nil {
		f.Fatal(err)
	}
	if err := creditors.SuspendPeer(context.Background(), nodetest.AAID, "maintenance"); err != nil {
		f.Fatal(err)
	}

	type place struct {
		dir  string
		peer string
		name string
		path string
	}
	var places []place
	found := make(map[string]bool)
	for _, pair := range [][2]*nodetest.Node{{authority, creditors}, {authority, debtors}, {creditors, authority}, {debtors, authority}} {
		dir, id := pair[0].Path(), pair[1].Identity().ID
		add := func(name string, elem ...string) {
			path := filepath.Join(append([]string{dir}, append(elem, filepath.FromSlash(name))...)...)
			data, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return // not in a directory of this type
			}
			if err != nil {
				f.Fatal(err)
			}
			for _, content := range []string{string(data), "", "100\n", "\x7f\n\n"} {
				f.Add(uint8(len(places)), []byte(content))
			}
			places = append(places, place{dir, id, name, path})
			found[name] = true
		}
		for _, name := range ofNode {
			add(name)
		}
		for _, name := range ofPeer {
			add(name, "peers", id)
		}
	}
	for _, name := range append(ofNode, ofPeer...) {
		if !found[name] {
			f.Fatalf("%s is in no directory", name)
		}
	}

	f.Fuzz(func(t *testing.T, n uint8, data []byte) {
		p := places[int(n)%len(places)]
		old, err := os.ReadFile(p.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p.path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := os.WriteFile(p.path, old, 0o644); err != nil {
				t.Fatal(err)
			}
		}()
		d, err := node.Open(p.dir)
		if err != nil {
			return
		}
		if date, err := d.Deactivated(p.peer); err == nil && (date == "") != (d.Identity().Type != da) {
			t.Errorf("deactivated on %q", date)
		}
		peer, err := d.Peer(p.peer)
		if err != nil {
			if p.name == stompTOML || p.name == updatedAt {
				t.Errorf("the peer is hidden: %v", err)
			}
			return
		}
		if s := peer.UpdatedAt; len(s) > 64 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("the date is %q", s)
		}
		if (peer.Stomp == nil) != (peer.StompErr != nil) {
			t.Errorf("the manifest is %+v, %v", peer.Stomp, peer.StompErr)
		}
		view, err := link.View(d, peer)
		if err != nil {
			return
		}
		q, err := link.BindingOf(d, peer, view, link.DefaultQueuePattern)
		if err != nil {
			return
		}
		if len(q.Queues) == 0 || len(q.Queues) > 99 || q.Exchange == "" || q.PeerID != p.peer || len(q.BindingKey) > 255 {
			t.Errorf("accepted %+v", q)
		}
	})
}

// fixedNode returns a node with a constant root key, so that inputs found by one
// process are useful in the next.
func fixedNode(f *testing.F, kind nodetype.Type) *nodetest.Node {
	f.Helper()
	scalar := sha256.Sum256([]byte{byte(kind)})
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar[:])
	if err != nil {
		f.Fatal(err)
	}
	return nodetest.NewWithKey(f, f.TempDir(), kind, "127.0.0.1:1", key)
}
