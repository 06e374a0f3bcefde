package offline

import (
	"crypto"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/nodetest"
	"peerlink/node/pki"
	"peerlink/node/signrecord"
)

// replaceCase is a node with a registered peer, and a request for its replacement.
type replaceCase struct {
	n    *nodetest.Node
	old  pki.Identity
	next *nodetest.Node
	item Replacement
}

// replacements returns the three ways of replacing a peer: by an accounting authority, which gives the new
// agent the subnet of the earlier one ("keep") or a new subnet ("new"), and by an agent, whose accounting
// authority has a new root key ("authority").
func replacements(t *testing.T) map[string]replaceCase {
	t.Helper()
	authority, agent := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
	nodetest.Peer(t, authority, agent)
	nextAgent, nextAuthority := nodetest.New(t, ca, "new.example.com:1234"), nodetest.New(t, aa, "new.example.com:1234")
	bundle := func(n *nodetest.Node) []byte { return readFileT(t, n.Bundle(t)) }
	return map[string]replaceCase{
		"keep":      {authority, agent.Identity(), nextAgent, Replacement{agent.Identity().ID, bundle(nextAgent), true}},
		"new":       {authority, agent.Identity(), nextAgent, Replacement{agent.Identity().ID, bundle(nextAgent), false}},
		"authority": {agent, authority.Identity(), nextAuthority, Replacement{nodetest.AAID, bundle(nextAuthority), false}},
	}
}

// check checks that the replacement was filed: everything is as after "peer replace".
func (c replaceCase) check(t *testing.T, d *node.Dir) {
	t.Helper()
	p, err := d.Peer(c.next.Identity().ID)
	if err != nil {
		t.Fatal(err)
	}
	if p.State() != "signed" || !p.Root.Equal(c.next.Root()) {
		t.Errorf("the new peer is %s", p.State())
	}
	if c.item.Peer == c.next.Identity().ID {
		if moved, err := filepath.Glob(filepath.Join(d.Path(), "replaced", c.item.Peer+"-*", "sub-ca.crt")); err != nil || len(moved) != 1 {
			t.Errorf("moved: %q, %v", moved, err)
		}
		return
	}
	old, err := d.Peer(c.item.Peer)
	if err != nil || old.Deactivated == "" {
		t.Errorf("the earlier peer is deactivated on %q, %v", old.Deactivated, err)
	}
	want := ""
	if c.item.KeepSubnet {
		want = p.Identity.ID
	}
	if got, err := d.CurrentSuccessor(c.item.Peer); got != want || err != nil {
		t.Errorf("messages go to %q, %v: expected %q", got, err, want)
	}
	if (p.Subnet == old.Subnet) != c.item.KeepSubnet {
		t.Errorf("subnet %s, it was %s", p.Subnet, old.Subnet)
	}
	if owner := string(readFileT(t, d.Path(), "db", "subnets", "creditors", p.Subnet)); owner != p.Identity.ID+"\n" {
		t.Errorf("the subnet %s is reserved for %q", p.Subnet, owner)
	}
}

// A peer that has lost its root key is replaced by a request, and what the operator is shown before it is
// signed names both root keys, both nodes, the subnet and whose accounts it has. Signing the request and
// filing the answer can be repeated, and change nothing then.
func TestReplacement(t *testing.T) {
	t.Parallel()
	for name, c := range replacements(t) {
		t.Run(name, func(t *testing.T) {
			laptop := copyTree(t, c.n.Path())
			d := copyTree(t, c.n.Path())
			old, err := d.Peer(c.item.Peer)
			if err != nil {
				t.Fatal(err)
			}
			r := mustCollect(t, d, c.item)
			item := r.Summary()[0]
			shown := item.String()
			for _, row := range item.Details(time.Now()) {
				shown += "\n" + row[0] + " " + row[1]
			}
			for _, want := range []string{c.item.Peer, c.next.Identity().ID, pki.Fingerprint(old.Root.PublicKey), pki.Fingerprint(c.next.Root().PublicKey),
				strings.Join(pki.FingerprintWords(c.next.Root().PublicKey), " "), item.Subnet, "new.example.com:1234", "destination", "accounts"} {
				if !strings.Contains(shown, want) {
					t.Errorf("%s is not shown:\n%s", want, shown)
				}
			}
			if item.KeepSubnet != c.item.KeepSubnet || item.Kind != KindReplacement {
				t.Errorf("%+v", item)
			}

			if err := r.CheckConflicts(ctx, laptop); err != nil {
				t.Fatal(err)
			}
			known, err := r.CompareReplacements(laptop)
			changed := func(what string) bool {
				return slices.ContainsFunc(known[0].Compared[0].Changes, func(c Change) bool { return c.What == what && c.Before != "" && c.After != "" })
			}
			if err != nil || len(known) != 1 || len(known[0].Compared) != 1 || !changed("root key") || !changed("servers") || changed("subnet") != (name == "new") {
				t.Errorf("differs: %+v, %v", known, err)
			}
			a := signed(t, r, c.n.Key)
			for range 2 { // the same request can be signed again
				if err := r.RecordSigned(ctx, laptop, time.Now()); err != nil {
					t.Fatal(err)
				}
				if err := r.CheckConflicts(ctx, laptop); err != nil {
					t.Error(err)
				}
			}
			if c.item.KeepSubnet { // which the laptop's copy of the peer's directory contradicts
				if holders, err := laptop.SubnetHolders(ctx); err != nil || len(holders) != 1 || holders[0].Peer != c.next.Identity().ID {
					t.Errorf("holders of subnets: %+v, %v", holders, err)
				}
			}
			if done := mustFile(t, d, a); done[0].State != filed {
				t.Errorf("%+v", done)
			}
			c.check(t, d)
			if done := mustFile(t, d, a); len(done) != 0 {
				t.Errorf("filed again: %+v", done)
			}
		})
	}
}

// If filing a replacement is interrupted before any of its changes, also within the replacement itself,
// it can be repeated, and ends as without an interruption.
func TestCrashWhileReplacing(t *testing.T) {
	t.Parallel()
	for name, c := range replacements(t) {
		t.Run(name, func(t *testing.T) {
			r := mustCollect(t, c.n.Dir, c.item)
			a := signed(t, r, c.n.Key)
			crashes := 0
			for ; ; crashes++ {
				d := copyTree(t, c.n.Path())
				_, err := file(ctx, d, a, time.Now(), crashAt(crashes))
				if err == nil {
					break
				}
				if !errors.Is(err, errCrash) {
					t.Fatalf("step %d: %v", crashes, err)
				}
				mustFile(t, d, a)
				c.check(t, d)
			}
			if crashes < 5 {
				t.Errorf("interrupted at only %d steps", crashes)
			}
			// The states within the replacement, which a kill leaves.
			within := map[string]func(d *node.Dir){
				"the successor is recorded": func(d *node.Dir) {
					writeFileT(t, c.next.Identity().ID+"\n", d.Path(), "peers", c.item.Peer, "SUCCESSOR")
				},
				"the peer is deactivated": func(d *node.Dir) {
					if c.item.KeepSubnet {
						writeFileT(t, c.next.Identity().ID+"\n", d.Path(), "peers", c.item.Peer, "SUCCESSOR")
					}
					writeFileT(t, "2026-01-01\n", d.Path(), "peers", c.item.Peer, "DEACTIVATED")
				},
			}
			if name == "authority" {
				within = map[string]func(d *node.Dir){"the directory of the peer is moved": func(d *node.Dir) {
					if err := os.Mkdir(filepath.Join(d.Path(), "replaced"), 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.Rename(filepath.Join(d.Path(), "peers", c.item.Peer), filepath.Join(d.Path(), "replaced", c.item.Peer+"-2026-01-01")); err != nil {
						t.Fatal(err)
					}
				}}
			}
			for state, apply := range within {
				d := copyTree(t, c.n.Path())
				if _, err := file(ctx, d, a, time.Now(), crashAt(2)); !errors.Is(err, errCrash) { // recorded, not replaced
					t.Fatal(err)
				}
				apply(d)
				if _, err := File(ctx, d, a, time.Now()); err != nil {
					t.Errorf("%s: %v", state, err)
					continue
				}
				c.check(t, d)
			}
		})
	}
}

// A replacement that has become impossible since it was requested is not filed, and no certificate is
// recorded.
func TestReplacedMeanwhile(t *testing.T) {
	t.Parallel()
	for name, c := range replacements(t) {
		if name == "new" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			other := nodetest.New(t, c.next.Identity().Type, "other.example.com:1234")
			d := copyTree(t, c.n.Path())
			a := signed(t, mustCollect(t, d, c.item), c.n.Key)
			replacement := node.Replacement{Peer: c.item.Peer, Bundle: nodetest.ReadBundle(t, other.Bundle(t)), KeepSubnet: c.item.KeepSubnet}
			if _, err := d.ReplacePeer(ctx, replacement, keyOf(c.n)); err != nil {
				t.Fatal(err)
			}
			before := snapshot(t, d.Path())
			if done, err := File(ctx, d, a, time.Now()); err == nil || done[0].State != Failed {
				t.Errorf("%+v, %v", done, err)
			}
			sameTree(t, d.Path(), before)
		})
	}
}

// If the subnet that was reserved for the new node has been given to another one meanwhile, the replacement
// is not filed.
func TestReplacementSubnetTaken(t *testing.T) {
	t.Parallel()
	c := replacements(t)["new"]
	d := copyTree(t, c.n.Path())
	r := mustCollect(t, d, c.item)
	a := signed(t, r, c.n.Key)
	writeFileT(t, strings.Repeat("a", 32)+"\n", d.Path(), "db", "subnets", "creditors", r.peers[0].subnet)
	before := snapshot(t, d.Path())
	if done, err := File(ctx, d, a, time.Now()); !errors.Is(err, node.ErrSubnetTaken) || done[0].State != Failed {
		t.Errorf("%+v, %v", done, err)
	}
	sameTree(t, d.Path(), before)
}

// On the offline machine, the subnet of a peer is given to another node only if that node replaces the one
// which has the subnet according to the record of what was signed there. The earlier node gets the subnet back
// only if it replaces the new one.
func TestReplacementConflicts(t *testing.T) {
	t.Parallel()
	c := replacements(t)["keep"]
	laptop := copyTree(t, c.n.Path())
	for _, folder := range []string{"peers", "certs"} { // the offline machine has only the record of what was signed
		if err := os.RemoveAll(filepath.Join(laptop.Path(), folder)); err != nil {
			t.Fatal(err)
		}
	}
	record := signRecordPath(laptop)
	if err := os.MkdirAll(filepath.Dir(record), 0o755); err != nil {
		t.Fatal(err)
	}
	old, err := c.n.Peer(c.item.Peer)
	if err != nil {
		t.Fatal(err)
	}
	first := signrecord.PeerCertificate(old.Identity, old.Root, old.Subnet, "AB")
	third := nodetest.New(t, ca, "third.example.com:1234")
	sign := func(certs ...signrecord.Certificate) error {
		return signrecord.Add(record, time.Now(), strings.Repeat("a", 32), certs)
	}
	if err := sign(first); err != nil {
		t.Fatal(err)
	}
	r := mustCollect(t, c.n.Dir, c.item)
	if err := r.CheckConflicts(ctx, laptop); err != nil {
		t.Fatal(err)
	}
	if err := r.RecordSigned(ctx, laptop, time.Now()); err != nil {
		t.Fatal(err)
	}
	if holders, err := laptop.SubnetHolders(ctx); err != nil || len(holders) != 1 || holders[0].Peer != c.next.Identity().ID {
		t.Errorf("holders of subnets: %+v, %v", holders, err)
	}
	if owner := string(readFileT(t, laptop.Path(), "db", "subnets", "creditors", old.Subnet)); owner != c.next.Identity().ID+"\n" {
		t.Errorf("the subnet is reserved for %q", owner) // the reference scripts look at nothing else
	}
	again := first
	again.Serial = "AC"
	stolen := signrecord.PeerCertificate(third.Identity(), third.Root(), old.Subnet, "AD")
	taken := stolen
	taken.Replaces = third.Identity().ID
	fromEarlier := stolen
	fromEarlier.Replaces = c.item.Peer
	for name, cert := range map[string]signrecord.Certificate{"the earlier peer": again, "a third node": stolen, "in the place of itself": taken, "in the place of the earlier peer": fromEarlier} {
		if sign(cert) == nil {
			t.Errorf("the subnet of the new node was given to another one: %s", name)
		}
	}
	next := stolen
	next.Replaces = c.next.Identity().ID
	if err := sign(next); err != nil {
		t.Errorf("the new node can not be replaced in turn: %v", err)
	}
}

func keyOf(n *nodetest.Node) func() (crypto.Signer, error) {
	return func() (crypto.Signer, error) { return n.Key, nil }
}

// A request for new peers and for replacements in one gives each node a subnet of its own, also if it was
// interrupted while it was collected.
func TestReplacementAmongOthers(t *testing.T) {
	t.Parallel()
	c := replacements(t)["keep"]
	items := []Requested{peerCertFor(t, nodetest.New(t, ca, "a.example.com:1234")), c.item, peerCertFor(t, nodetest.New(t, da, "b.example.com:1234"))}
	for crashes := 0; ; crashes++ {
		d := copyTree(t, c.n.Path())
		crashed := collectUntil(t, d, items, crashAt(crashes))
		if !crashed {
			break
		}
		r := mustCollect(t, d, items...)
		if r.peers[0].subnet != "000002" || r.peers[1].subnet != "000001" || r.peers[2].subnet != d.Identity().ID+"00" {
			t.Errorf("step %d: subnets %s, %s, %s", crashes, r.peers[0].subnet, r.peers[1].subnet, r.peers[2].subnet)
		}
		mustFile(t, d, signed(t, r, c.n.Key))
		c.check(t, d)
	}
	twice := append(slices.Clone(items), Replacement{c.item.Peer, items[0].(PeerCert).Bundle, false})
	if r, err := Collect(ctx, copyTree(t, c.n.Path()), twice, time.Now()); err == nil {
		t.Errorf("one peer is replaced by two nodes: %v", r.Summary())
	}
}

// A request that was changed on its way, or made by a program of an attacker, can not ask for a
// replacement by which the laptop's records would be contradicted, or whose summary would be wrong.
func TestReplacementTampered(t *testing.T) {
	t.Parallel()
	all := replacements(t)
	third := nodetest.New(t, ca, "third.example.com:1234")
	debtors := nodetest.New(t, da, "debtors.example.com:1234")
	authority := all["keep"].n
	authority.Sign(t, third.Bundle(t)) // with the subnet 000002
	rootOf := func(n *nodetest.Node) []byte { return pki.EncodeCertificatePEM(n.Root()) }
	for _, c := range []struct {
		name, of string
		change   func(p *peerCertFile)
		want     string
	}{
		{"the subnet of a third node", "keep", func(p *peerCertFile) { p.Subnet = "000002" }, "which has another one"},
		{"the place of a third node", "keep", func(p *peerCertFile) { p.Replaces.Root = rootOf(third) }, "which has another one"},
		{"the place of a third node, with its subnet", "new", func(p *peerCertFile) { p.Subnet = "000002" }, "already belongs to"},
		{"the subnet of the peer, but not kept", "new", func(p *peerCertFile) { p.Subnet = "000001" }, "already belongs to"},
		{"a peer of another type", "keep", func(p *peerCertFile) { p.Replaces.Root = rootOf(debtors) }, "another type"},
		{"the node itself", "keep", func(p *peerCertFile) { p.Replaces.Root = rootOf(all["keep"].next) }, "nothing to replace"},
		{"text around the certificate", "keep", func(p *peerCertFile) { p.Replaces.Root = append(p.Replaces.Root, "x\n"...) }, "text after the PEM block"},
		{"a subnet of an agent", "authority", func(p *peerCertFile) { p.Replaces.KeepSubnet = true }, "gives no subnets"},
		{"an agent for an authority", "authority", func(p *peerCertFile) { p.Replaces.Root = rootOf(third) }, "another type"},
		{"no replacement", "authority", func(p *peerCertFile) { p.Replaces = nil }, "known here with another root certificate"},
	} {
		base := all[c.of]
		laptop := copyTree(t, base.n.Path())
		r := mustCollect(t, copyTree(t, base.n.Path()), base.item)
		var f requestFile
		if err := decode(r.Encode(), requestFormat, &f, &f.header); err != nil {
			t.Fatal(err)
		}
		c.change(&f.PeerCerts[0])
		data, err := encode(&f)
		if err != nil {
			t.Fatal(err)
		}
		changed, err := ReadRequest(data, time.Now())
		if err == nil {
			err = changed.CheckConflicts(ctx, laptop)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v\nexpected an error with %q", c.name, err, c.want)
		}
	}
}

// bundleWith returns the info-bundle of a node with the given files beside the date, which is always the same.
func bundleWith(t *testing.T, n *nodetest.Node, files map[string]string) []byte {
	t.Helper()
	list := []infobundle.File{{Name: infobundle.UpdatedAt, Data: []byte("2026-01-01\n")}}
	if date, ok := files[infobundle.UpdatedAt]; ok {
		list[0].Data = []byte(date)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if name != infobundle.UpdatedAt {
			list = append(list, infobundle.File{Name: name, Data: []byte(files[name])})
		}
	}
	nodeinfo, signature, err := infobundle.Sign(list, n.Key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.NewCSR(n.Identity(), n.Key, pki.RootCSR)
	if err != nil {
		t.Fatal(err)
	}
	data, err := infobundle.Assemble(pki.EncodeCertificatePEM(n.Root()), pki.EncodeCSRPEM(csr), nodeinfo, signature)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// shownWith returns everything that is shown of a request on an offline machine with a copy of the node's
// directory, or the error for which it is refused there.
func shownWith(data []byte, laptop *node.Dir) (string, error) {
	r, err := ReadRequest(data, time.Now())
	if err == nil {
		err = r.CheckConflicts(ctx, laptop)
	}
	if err != nil {
		return "", err
	}
	known, err := r.CompareReplacements(laptop)
	return fmt.Sprintf("%s%+v", shown(r), known), err
}

// Whatever is changed in a request for a replacement, other than the ID and the time of the request, and the
// root key's signing request, which is used only for an own info-bundle, the offline machine refuses it, or shows something else than of the honest request. The info-bundles
// that take the place of the honest one are valid ones: the peer's owner may have signed several.
func TestReplacementIsNotSignedUnseen(t *testing.T) {
	t.Parallel()
	const stomp = "servers = [\"new.example.com:1234\"]\nhost = \"/\"\ndestination = \"/exchange/in\"\nlogin = \"me\"\npasscode = \"x\"\naccepted-content-types = [\"application/json\"]\ninfo-bundle-urls = [\"https://example.com/b.zip\"]\n"
	const revoked = "0000000000000000000000000000000000000000000000000000000000000000\n"
	honestFiles := map[string]string{infobundle.StompTOML: stomp, "other.txt": "other", infobundle.RevokedKeys: revoked}
	for name, c := range replacements(t) {
		t.Run(name, func(t *testing.T) {
			laptop := copyTree(t, c.n.Path())
			c.item.Bundle = bundleWith(t, c.next, honestFiles)
			honest := mustCollect(t, copyTree(t, c.n.Path()), c.item)
			want, err := shownWith(honest.Encode(), laptop)
			if err != nil {
				t.Fatal(err)
			}
			check := func(what string, data []byte) {
				t.Helper()
				if got, err := shownWith(data, laptop); err == nil && got == want {
					t.Errorf("%s was changed, and the offline machine shows the same", what)
				}
			}
			for path, data := range changes[requestFile](t, honest.Encode()) {
				if field, _, _ := strings.Cut(path, " "); field != ".id" && field != ".created" && field != ".root_csr" {
					check(path, data)
				}
			}
			tamper := func(what string, change func(*peerCertFile)) {
				t.Helper()
				var f requestFile
				if err := decode(honest.Encode(), requestFormat, &f, &f.header); err != nil {
					t.Fatal(err)
				}
				change(&f.PeerCerts[0])
				data, err := encode(&f)
				if err != nil {
					t.Fatal(err)
				}
				check(what, data)
			}
			for _, b := range []struct{ what, file, from, to string }{
				{"servers", infobundle.StompTOML, "new.example.com:1234", "evil.example.com:666"},
				{"host", infobundle.StompTOML, `host = "/"`, `host = "/evil"`},
				{"destination", infobundle.StompTOML, "/exchange/in", "/exchange/evil"},
				{"login", infobundle.StompTOML, `"me"`, `"evil"`},
				{"no login", infobundle.StompTOML, "login = \"me\"\n", ""},
				{"passcode", infobundle.StompTOML, `passcode = "x"`, `passcode = "evil"`},
				{"accepted-content-types", infobundle.StompTOML, "application/json", "evil/type"},
				{"info-bundle-urls", infobundle.StompTOML, "https://example.com/", "https://evil.example.com/"},
				{"a value of later versions", infobundle.StompTOML, stomp, stomp + "future-key = 1\n"},
				{"another file", "other.txt", "other", "evil"},
				{"another revoked key", infobundle.RevokedKeys, "00\n", "01\n"},
				{"the date", infobundle.UpdatedAt, "", "2026-01-02\n"},
			} {
				files := maps.Clone(honestFiles)
				files[b.file] = strings.Replace(files[b.file], b.from, b.to, 1)
				data := bundleWith(t, c.next, files)
				tamper(b.what, func(p *peerCertFile) { p.Bundle = data })
			}
			evil := nodetest.New(t, c.next.Identity().Type, "new.example.com:1234")
			evilBundle := bundleWith(t, evil, honestFiles)
			tamper("the root key", func(p *peerCertFile) { p.Bundle = evilBundle })
			tamper("the earlier root key", func(p *peerCertFile) { p.Replaces.Root = pki.EncodeCertificatePEM(evil.Root()) })
			tamper("whose subnet it is", func(p *peerCertFile) { p.Replaces.KeepSubnet = !p.Replaces.KeepSubnet })
			tamper("the subnet", func(p *peerCertFile) { p.Subnet = "000003" })
			tamper("whether it is a replacement", func(p *peerCertFile) { p.Replaces = nil })
		})
	}
}

// A replacement is compared with the record of what was signed here, and also with the copy of the peer's
// directory, whose values the record does not have: a changed address, passcode or date is shown, and an
// earlier root key that is another one than the request says.
func TestReplacementComparedWithBoth(t *testing.T) {
	t.Parallel()
	c := replacements(t)["authority"]
	laptop := copyTree(t, c.n.Path())
	old, err := laptop.Peer(c.item.Peer)
	if err != nil {
		t.Fatal(err)
	}
	recorded := nodetest.New(t, aa, "recorded.example.com:1234")
	if err := os.MkdirAll(filepath.Dir(signRecordPath(laptop)), 0o755); err != nil {
		t.Fatal(err)
	}
	first := signrecord.PeerCertificate(recorded.Identity(), recorded.Root(), "", "AB")
	if err := signrecord.Add(signRecordPath(laptop), time.Now(), strings.Repeat("a", 32), []signrecord.Certificate{first}); err != nil {
		t.Fatal(err)
	}
	stomp := string(readFileT(t, laptop.Path(), "peers", c.item.Peer, "nodeinfo", infobundle.StompTOML))
	writeFileT(t, stomp+"passcode = \"x\"\n", laptop.Path(), "peers", c.item.Peer, "nodeinfo", infobundle.StompTOML)
	c.item.Bundle = bundleWith(t, c.next, map[string]string{infobundle.StompTOML: strings.Replace(stomp, "aa.example.com", "new.example.com", 1) + "passcode = \"y\"\n"})
	r := mustCollect(t, c.n.Dir, c.item)
	list, err := r.CompareReplacements(laptop)
	if err != nil || len(list) != 1 || len(list[0].Compared) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	next, replaced, was := pki.Fingerprint(c.next.Root().PublicKey), pki.Fingerprint(old.Root.PublicKey), pki.Fingerprint(recorded.Root().PublicKey)
	if got, want := fmt.Sprint(list[0].Compared[0].Changes), fmt.Sprintf("[root key is %s, it was %s the earlier root key, as the request names it, is %s, it was %[2]s]", next, was, replaced); got != want {
		t.Errorf("compared with the record:\n%s\nwant\n%s", got, want)
	}
	if got, want := fmt.Sprint(list[0].Compared[1].Changes), fmt.Sprintf("[root key is %s, it was %s servers is new.example.com:1234, it was aa.example.com:1234 passcode is given (not shown), it was another one the date is 2026-01-01, it was %s]", next, replaced, old.UpdatedAt); got != want {
		t.Errorf("compared with the copy:\n%s\nwant\n%s", got, want)
	}
	recordSigned(t, r, laptop)
	if list, err = r.CompareReplacements(laptop); err != nil || len(list[0].Compared[0].Changes) != 0 {
		t.Errorf("signed before: %+v, %v", list, err)
	}
}
