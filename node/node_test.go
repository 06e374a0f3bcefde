package node_test

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

var (
	ctx = context.Background()
	aa  = nodetype.AccountingAuthority
	ca  = nodetype.CreditorsAgent
	da  = nodetype.DebtorsAgent
)

// snapshot is a fingerprint of everything in a directory: names, modes, content.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %v\n", path, fi.Mode())
		if !e.IsDir() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(h, "%x\n", sha256.Sum256(data))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func read(t *testing.T, elem ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Two nodes of every possible pair become registered peers, and both record the
// same subnet.
func TestPeering(t *testing.T) {
	for _, agent := range []nodetype.Type{ca, da} {
		t.Run(agent.Short(), func(t *testing.T) {
			a, b := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, agent, "agent.example.com:1234")
			nodetest.Peer(t, a, b)
			pa, err := a.Peer(b.Identity().ID)
			if err != nil {
				t.Fatal(err)
			}
			pb, err := b.Peer(a.Identity().ID)
			if err != nil {
				t.Fatal(err)
			}
			want := map[nodetype.Type]string{ca: "000001", da: nodetest.AAID + "00"}[agent]
			if pa.Subnet != want || pb.Subnet != want {
				t.Errorf("subnets are %q and %q, want %q", pa.Subnet, pb.Subnet, want)
			}
			for _, p := range []*node.Peer{pa, pb} {
				if p.State() != "registered" || p.Queues != 1 || p.StompErr != nil {
					t.Errorf("peer %v: state %s, queues %d, stomp error %v", p.Identity, p.State(), p.Queues, p.StompErr)
				}
			}
			if got := pb.Stomp.Destination; got != "/exchange/accounts_in" {
				t.Errorf("destination at the accounting authority: %q", got)
			}
			if err := a.MarkActive(b.Identity().ID); err != nil {
				t.Fatal(err)
			}
			if changed, err := a.DeactivatePeer(ctx, b.Identity().ID); err != nil || !changed {
				t.Fatalf("deactivate: %v, %v", changed, err)
			}
			if pa, err = a.Peer(b.Identity().ID); err != nil || pa.State() != "deactivated" || !pa.Active {
				t.Errorf("after deactivation: %v %v", pa, err)
			}
		})
	}
}

// A refused operation leaves the directory byte for byte unchanged.
func TestRefusalsChangeNothing(t *testing.T) {
	a := nodetest.New(t, aa, "aa.example.com:1234")
	c := nodetest.New(t, ca, "ca.example.com:1234")
	d := nodetest.New(t, da, "da.example.com:1234")
	stranger := nodetest.New(t, ca, "x.example.com:1234")
	nodetest.Peer(t, a, c)
	a.Sign(t, stranger.Bundle(t))

	// An accounting authority with the same chosen ID, but another key.
	impostor := nodetest.New(t, aa, "evil.example.com:1234")
	a2 := nodetest.NewWithKey(t, t.TempDir(), ca, "x.example.com:1234", stranger.Key)
	foreign := func() string { // a peer certificate from a node that c does not know
		other := nodetest.New(t, aa, "other.example.com:1234")
		return read(t, other.Sign(t, c.Bundle(t)).CertFile)
	}()
	peercert := read(t, a.Path(), "peers", c.Identity().ID, "peercert.crt")
	serverCert, _ := c.ServerCert(t)

	sign := func(n *nodetest.Node, bundle string, key crypto.Signer) func() error {
		return func() error {
			data, err := os.ReadFile(bundle)
			if err != nil {
				return err
			}
			b, err := infobundle.Read(data, time.Now())
			if err != nil {
				return err
			}
			_, err = n.SignPeer(ctx, b, func() (crypto.Signer, error) { return key, nil })
			return err
		}
	}
	register := func(n *nodetest.Node, cert string) func() error {
		return func() error { _, _, err := n.RegisterPeer(ctx, []byte(cert)); return err }
	}
	tests := []struct {
		name string
		node *nodetest.Node
		do   func() error
		want string // in the error
		is   error
	}{
		{"own bundle", a, sign(a, a.Bundle(t), a.Key), "own info-bundle", nil},
		{"incompatible types", c, sign(c, d.Bundle(t), c.Key), "must be an accounting authority", nil},
		{"authority for authority", a, sign(a, impostor.Bundle(t), a.Key), "own info-bundle", nil},
		{"wrong key", a, sign(a, d.Bundle(t), stranger.Key), "root key", node.ErrWrongKey},
		{"same ID, another root certificate", c, sign(c, impostor.Bundle(t), c.Key), "break-in", nil},
		{"same key, another root certificate", a, sign(a, a2.Bundle(t), a.Key), "same root key", node.ErrOtherRoot},
		{"certificate from an unknown peer", c, register(stranger, foreign), "not known here", node.ErrUnknownPeer},
		{"certificate of an impostor", c, register(c, foreign), "registered already", nil},
		{"certificate for another node", a, register(d, peercert), "", nil},
		{"server certificate instead of peer certificate", c, register(c, read(t, serverCert)), "", nil},
		{"two certificates in one file", c, register(c, peercert+peercert), "", nil},
		{"not PEM", c, register(c, "hello"), "", pki.ErrPEM},
		{"deactivate an unregistered peer", a, func() error { _, err := a.DeactivatePeer(ctx, stranger.Identity().ID); return err }, "", node.ErrNotRegistered},
		{"deactivate nobody", a, func() error { _, err := a.DeactivatePeer(ctx, "00000000"); return err }, "", node.ErrUnknownPeer},
		{"deactivate with a path", a, func() error { _, err := a.DeactivatePeer(ctx, "../../x"); return err }, "not a node ID", nil},
		{"init again", a, func() error {
			_, err := node.Init(ctx, a.Path(), node.InitOptions{Type: aa, ID: nodetest.AAID, Servers: []string{"x.example.com:1"}, Key: a.Key})
			return err
		}, "", node.ErrExists},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := snapshot(t, tt.node.Path())
			err := tt.do()
			if err == nil {
				t.Fatal("accepted")
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("error is %v, want %v", err, tt.is)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q does not say %q", err, tt.want)
			}
			if after := snapshot(t, tt.node.Path()); after != before {
				t.Error("the directory has changed")
			}
		})
	}
}

// A debtors agent has exactly one peer.
func TestDebtorsAgentHasOnePeer(t *testing.T) {
	d := nodetest.New(t, da, "da.example.com:1234")
	a := nodetest.New(t, aa, "aa.example.com:1234")
	nodetest.Peer(t, a, d)
	key, err := pki.GenerateKey(pki.P256)
	if err != nil {
		t.Fatal(err)
	}
	o, err := node.Init(ctx, t.TempDir(), node.InitOptions{Type: aa, ID: "99999999", Servers: []string{"x.example.com:1"}, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	other := &nodetest.Node{Dir: o, Key: key}
	before := snapshot(t, d.Path())
	_, err = d.SignPeer(ctx, nodetest.ReadBundle(t, other.Bundle(t)), func() (crypto.Signer, error) { return d.Key, nil })
	if err == nil || !strings.Contains(err.Error(), "exactly one peer") {
		t.Errorf("error is %v", err)
	}
	if snapshot(t, d.Path()) != before {
		t.Error("the directory has changed")
	}
}

// A newer bundle of a known peer replaces its nodeinfo, without the root key;
// an older bundle, or the same bundle again, does not.
func TestBundleUpdates(t *testing.T) {
	a, c := nodetest.New(t, aa, "old.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
	nodetest.Peer(t, a, c)
	old := a.Bundle(t)
	c.Sign(t, old)

	manifest := filepath.Join(a.Path(), "nodeinfo", "stomp.toml")
	if err := os.WriteFile(manifest, node.EncodeStompTOML(aa, []string{"new.example.com:4321"}), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(a.Path(), "nodeinfo", "docs"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(a.Path(), "nodeinfo", "docs", "about.txt"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	newer := a.Bundle(t)

	noKey := func() (crypto.Signer, error) { return nil, errors.New("the key was asked for") }
	for _, step := range []struct {
		bundle  string
		updated bool
	}{{newer, true}, {newer, false}, {old, false}} {
		res, err := c.SignPeer(ctx, nodetest.ReadBundle(t, step.bundle), noKey)
		if err != nil {
			t.Fatal(err)
		}
		if res.Updated != step.updated || res.New {
			t.Errorf("updated %v, new %v; want %v, false", res.Updated, res.New, step.updated)
		}
		if (res.IgnoredReason != "") != (step.bundle == old) {
			t.Errorf("the reason why the bundle was ignored is %q", res.IgnoredReason)
		}
		if got := res.Peer.Stomp.Servers[0]; got != "new.example.com:4321" {
			t.Errorf("server is %s", got)
		}
		if got := read(t, c.Path(), "peers", nodetest.AAID, "nodeinfo", "docs", "about.txt"); got != "hello" {
			t.Errorf("about.txt is %q", got)
		}
	}
}

// If an earlier version has recorded a date of a peer that is invalid or in the far
// future, a bundle with a valid date updates the peer again. But a bundle that was
// fetched automatically does not move a valid date back: a person must sign it.
func TestDateRecovers(t *testing.T) {
	a, c := nodetest.New(t, aa, "old.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
	nodetest.Peer(t, a, c)
	b := nodetest.ReadBundle(t, a.Bundle(t))
	date := filepath.Join(c.Path(), "peers", nodetest.AAID, "nodeinfo", "updated-at.txt")
	for old, followed := range map[string]bool{"~~~~": true, "\xff\xfe~": true, "2999-01-01\n": false} {
		for _, person := range []bool{false, true} {
			if err := os.WriteFile(date, []byte(old), 0o644); err != nil {
				t.Fatal(err)
			}
			var updated bool
			var err error
			if person {
				var res *node.SignResult
				if res, err = c.SignPeer(ctx, b, nil); err == nil {
					updated = res.Updated
				}
			} else {
				updated, err = c.ReplaceNodeinfo(ctx, b)
			}
			if err != nil || updated != (person || followed) {
				t.Errorf("after %q, person %v: updated %v, %v", old, person, updated, err)
			}
		}
	}
}

// When newer nodeinfo replaces an older one, no file and no folder of the older one
// remains, however deep earlier versions have unpacked it. The targets of symbolic
// links in the older one are not removed.
func TestNothingOfOlderNodeinfo(t *testing.T) {
	a, c := nodetest.New(t, aa, "old.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
	nodetest.Peer(t, a, c)
	info := filepath.Join(c.Path(), "peers", nodetest.AAID, "nodeinfo")
	elsewhere := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(info, strings.Repeat("a/", 500)), 0o755),
		os.MkdirAll(filepath.Join(info, "docs", "empty", "er"), 0o755),
		os.MkdirAll(filepath.Join(info, "about", "folder"), 0o755),
		os.WriteFile(filepath.Join(info, "HEAD"), nil, 0o644),
		os.WriteFile(filepath.Join(info, "docs", "old.txt"), nil, 0o644),
		os.WriteFile(filepath.Join(elsewhere, "kept"), nil, 0o644),
		os.MkdirAll(filepath.Join(a.Path(), "nodeinfo", "docs"), 0o755),
		os.WriteFile(filepath.Join(a.Path(), "nodeinfo", "docs", "new.txt"), nil, 0o644),
		os.WriteFile(filepath.Join(a.Path(), "nodeinfo", "about"), nil, 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(elsewhere, filepath.Join(info, "link")); err != nil {
		t.Logf("without symbolic links: %v", err)
	}
	c.Sign(t, a.Bundle(t))
	var left []string
	err := filepath.WalkDir(info, func(path string, _ fs.DirEntry, err error) error {
		left = append(left, strings.TrimPrefix(filepath.ToSlash(path), filepath.ToSlash(info)))
		return err
	})
	if got := strings.Join(left, " "); err != nil || got != " /about /docs /docs/new.txt /stomp.toml /updated-at.txt" {
		t.Errorf("the files in nodeinfo are%s, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(elsewhere, "kept")); err != nil {
		t.Error(err)
	}
}

// Concurrent commands on one directory give every certificate its own serial
// number and every peer its own subnet.
func TestConcurrentSigning(t *testing.T) {
	a := nodetest.New(t, aa, "aa.example.com:1234")
	const n = 8
	bundles := make([]*infobundle.Bundle, n)
	for i := range bundles {
		bundles[i] = nodetest.ReadBundle(t, nodetest.New(t, []nodetype.Type{ca, da}[i%2], "x.example.com:1").Bundle(t))
	}
	errs := make(chan error, n)
	for _, b := range bundles {
		go func() {
			d, err := node.Open(a.Path())
			if err == nil {
				_, err = d.SignPeer(ctx, b, func() (crypto.Signer, error) { return a.Key, nil })
			}
			errs <- err
		}()
	}
	for range bundles {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	subnets, serials := make(map[string]bool), make(map[string]bool)
	for _, b := range bundles {
		p, err := a.Peer(b.Identity.ID)
		if err != nil {
			t.Fatal(err)
		}
		subnets[p.Subnet], serials[p.Issued.SerialNumber.String()] = true, true
	}
	if len(subnets) != n || len(serials) != n {
		t.Errorf("%d subnets and %d serial numbers for %d peers", len(subnets), len(serials), n)
	}
	if lines := strings.Count(read(t, a.Path(), "db", "index"), "\n"); lines != n+1 {
		t.Errorf("db/index has %d lines, want %d", lines, n+1)
	}
	entries, err := os.ReadDir(filepath.Join(a.Path(), "peers"))
	if err != nil || len(entries) != n {
		t.Errorf("peers/ has %d entries (%v), want %d", len(entries), err, n)
	}
}

// A serial number that was used without incrementing db/serial is not used again.
func TestUsedSerialIsPassedOver(t *testing.T) {
	a := nodetest.New(t, ca, "ca.example.com:1234")
	next := strings.TrimSpace(read(t, a.Path(), "db", "serial"))
	if err := os.WriteFile(filepath.Join(a.Path(), "certs", next+".pem"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	res := a.Sign(t, nodetest.New(t, aa, "aa.example.com:1234").Bundle(t))
	if got := fmt.Sprintf("%X", res.Peer.Issued.SerialNumber); got == next {
		t.Errorf("the serial number %s was used twice", got)
	}
}

// Open accepts only a directory with all essential files.
func TestOpenRefuses(t *testing.T) {
	for _, missing := range []string{"db/nodetype", "db/nodeid", "root-ca.crt"} {
		a := nodetest.New(t, aa, "aa.example.com:1234")
		if err := os.Remove(filepath.Join(a.Path(), missing)); err != nil {
			t.Fatal(err)
		}
		if _, err := node.Open(a.Path()); !errors.Is(err, node.ErrNotNode) {
			t.Errorf("without %s: %v", missing, err)
		}
	}
	a := nodetest.New(t, aa, "aa.example.com:1234")
	if err := os.WriteFile(filepath.Join(a.Path(), "db", "nodeid"), []byte("00000000\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := node.Open(a.Path()); err == nil {
		t.Error("a node ID that is not the certificate's was accepted")
	}
}

// The nodeinfo of a peer is not replaced through a symbolic link that leads out of the node's
// directory: otherwise, the owner of the directory could make root empty any folder.
func TestNodeinfoIsNoLink(t *testing.T) {
	for _, name := range []string{"nodeinfo", ""} {
		a, c := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
		a.Sign(t, c.Bundle(t))
		victim := t.TempDir()
		write(t, "precious", victim, "nodeinfo", "passwd")
		folder := filepath.Join(a.Path(), "peers", c.Identity().ID)
		if name == "" {
			for _, file := range []string{"root-ca.crt", "peercert.crt", "nodetype.txt", "queues.txt", "subnet.txt"} {
				write(t, read(t, folder, file), victim, file)
			}
		}
		remove(t, folder, name)
		if err := os.Symlink(filepath.Join(victim, name), filepath.Join(folder, name)); err != nil {
			t.Skip(err)
		}
		before := snapshot(t, victim)
		if _, err := a.SignPeer(ctx, nodetest.ReadBundle(t, c.Bundle(t)), nil); err == nil || !strings.Contains(err.Error(), "escapes") {
			t.Errorf("%q: error %v", name, err)
		}
		if snapshot(t, victim) != before {
			t.Errorf("%q: the folder outside has changed", name)
		}
	}
}

// Root changes nothing in a node's directory if the directory, or a folder in it, belongs to
// another user: that user could redirect by symbolic links what root writes.
func TestRootWritesNowhereElse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give folders away: skipped")
	}
	a, c := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
	a.Sign(t, c.Bundle(t))
	bundle := nodetest.ReadBundle(t, c.Bundle(t))
	id := c.Identity().ID
	for _, folder := range []string{"", "db", "db/subnets", "peers", "peers/" + id, "peers/" + id + "/nodeinfo"} {
		path := filepath.Join(a.Path(), folder)
		if err := os.Chown(path, 65534, -1); err != nil {
			t.Fatal(err)
		}
		before := snapshot(t, a.Path())
		for name, do := range map[string]func() error{
			"sign":       func() error { _, err := a.SignPeer(ctx, bundle, nil); return err },
			"deactivate": func() error { _, err := a.DeactivatePeer(ctx, id); return err },
			"queues":     func() error { return a.SetQueues(ctx, id, 2) },
		} {
			if err := do(); err == nil || !strings.Contains(err.Error(), "sudo -u ") {
				t.Errorf("folder %q of another user, %s: %v", folder, name, err)
			}
		}
		if snapshot(t, a.Path()) != before {
			t.Errorf("folder %q of another user: the directory has changed", folder)
		}
		if err := os.Chown(path, 0, -1); err != nil {
			t.Fatal(err)
		}
	}
	a.Sign(t, c.Bundle(t))
	theirs := t.TempDir()
	if err := os.Chown(theirs, 65534, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := node.Init(ctx, theirs, node.InitOptions{Type: aa, ID: "1234abcd", Servers: []string{"aa.example.com:1234"}, Key: a.Key}); err == nil || !strings.Contains(err.Error(), "sudo -u ") {
		t.Errorf("a new node in a folder of another user: %v", err)
	}
}

// The folders of a new peer can be read by all, whatever the umask is: the service that uses
// them may have another user than the command that made them.
func TestFoldersOfPeerCanBeRead(t *testing.T) {
	a, c := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
	bundle := c.Bundle(t)
	restore := umask(0o077)
	a.Sign(t, bundle)
	restore()
	folder := filepath.Join(a.Path(), "peers", c.Identity().ID)
	for _, path := range []string{folder, filepath.Join(folder, "nodeinfo")} {
		if fi, err := os.Stat(path); err != nil || umasks && fi.Mode().Perm() != 0o755 {
			t.Errorf("%s has mode %v, %v", path, fi.Mode(), err)
		}
	}
}
