package node_test

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"peerlink/node"
	"peerlink/node/check"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/node/signrecord"
)

// A subnet that was given to a peer is never given to another one, whichever of the records
// of it are lost or come from an older backup, with and without a Repair: one remaining
// record is sufficient. The peer itself gets the same subnet again.
func TestSubnetsAreGivenOnce(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir string, peer *node.Peer){
		"reservations lost":            func(t *testing.T, dir string, _ *node.Peer) { remove(t, dir, "db", "subnets") },
		"reservations and copies lost": func(t *testing.T, dir string, _ *node.Peer) { remove(t, dir, "db", "subnets"); remove(t, dir, "certs") },
		"peers lost":                   func(t *testing.T, dir string, _ *node.Peer) { remove(t, dir, "peers") },
		"peers and reservations lost":  func(t *testing.T, dir string, _ *node.Peer) { remove(t, dir, "peers"); remove(t, dir, "db", "subnets") },
		"older reservations":           func(t *testing.T, dir string, p *node.Peer) { olderReservations(t, dir, p) },
		"older reservations, subnet.txt lost": func(t *testing.T, dir string, p *node.Peer) {
			olderReservations(t, dir, p)
			remove(t, dir, "certs")
			remove(t, dir, "peers", p.Identity.ID, "subnet.txt")
		},
		"certificates lost, older reservations": func(t *testing.T, dir string, p *node.Peer) {
			olderReservations(t, dir, p)
			remove(t, dir, "certs")
			remove(t, dir, "peers", p.Identity.ID, "peercert.crt")
		},
		"all but the record of an offline machine lost": func(t *testing.T, dir string, p *node.Peer) {
			write(t, "", dir, "db", "offline", "last-signed")
			err := signrecord.Add(filepath.Join(dir, "db", "offline", signrecord.Name), time.Now(), strings.Repeat("a", 32),
				[]signrecord.Certificate{signrecord.PeerCertificate(p.Identity, p.Root, p.Subnet, "AB")})
			if err != nil {
				t.Fatal(err)
			}
			for _, folder := range []string{"peers", "certs", "db/subnets"} {
				remove(t, dir, folder)
			}
		},
	} {
		for _, kind := range []nodetype.Type{ca, da} {
			for _, repaired := range []bool{false, true} {
				t.Run(name+", "+kind.String()+map[bool]string{true: ", repaired"}[repaired], func(t *testing.T) {
					t.Parallel()
					a, known := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, kind, "x.example.com:1")
					p := a.Sign(t, known.Bundle(t)).Peer
					damage(t, a.Path(), p)
					if repaired {
						if _, err := a.Repair(ctx); err != nil {
							t.Fatal(err)
						}
					}
					if got := a.Sign(t, nodetest.New(t, kind, "y.example.com:1").Bundle(t)).Peer.Subnet; got == p.Subnet {
						t.Fatalf("two peers have the subnet %s", got)
					}
					if _, err := os.Stat(reservation(a.Path(), p)); repaired && err != nil {
						t.Errorf("the reference's scripts could give the subnet again: %v", err)
					}
					remove(t, a.Path(), "peers", p.Identity.ID)
					if strings.Contains(name, "copies") || strings.Contains(name, "certificates") || strings.Contains(name, "subnet.txt") {
						return // no record is left then
					}
					if got := a.Sign(t, known.Bundle(t)).Peer.Subnet; got != p.Subnet {
						t.Errorf("the peer has the subnet %s, and had %s before", got, p.Subnet)
					}
				})
			}
		}
	}
}

func keyOf(n *nodetest.Node) func() (crypto.Signer, error) {
	return func() (crypto.Signer, error) { return n.Key, nil }
}

func reservation(dir string, p *node.Peer) string {
	pool := map[nodetype.Type]string{ca: "creditors", da: "debtors"}[p.Identity.Type]
	return filepath.Join(dir, "db", "subnets", pool, p.Subnet)
}

// olderReservations restores the state of db/subnets before the peer was signed.
func olderReservations(t *testing.T, dir string, p *node.Peer) {
	t.Helper()
	file := reservation(dir, p)
	remove(t, file)
	write(t, map[nodetype.Type]string{ca: "0\n", da: "-1\n"}[p.Identity.Type], filepath.Dir(file), "SEQNUM")
}

// A subnet that contains the subnet of another peer, or is contained in it, is not free.
func TestOverlappingSubnetsAreNotFree(t *testing.T) {
	a := nodetest.New(t, aa, "aa.example.com:1234")
	p := a.Sign(t, nodetest.New(t, da, "x.example.com:1").Bundle(t)).Peer
	write(t, nodetest.AAID+"01ff\n", a.Path(), "peers", p.Identity.ID, "subnet.txt")
	for _, want := range []string{"02", "03"} {
		if got := a.Sign(t, nodetest.New(t, da, "y.example.com:1").Bundle(t)).Peer.Subnet; got != nodetest.AAID+want {
			t.Errorf("subnet %s, want %s", got, nodetest.AAID+want)
		}
	}
	write(t, nodetest.AAID+"\n", a.Path(), "peers", p.Identity.ID, "subnet.txt")
	b := nodetest.ReadBundle(t, nodetest.New(t, da, "z.example.com:1").Bundle(t))
	if _, err := a.SignPeer(ctx, b, keyOf(a)); err == nil || !strings.Contains(err.Error(), "no free subnet") {
		t.Errorf("error %v, although a peer has all subnets", err)
	}
	// Subnets of creditor IDs are no part of those of debtor IDs.
	if got := a.Sign(t, nodetest.New(t, ca, "c.example.com:1").Bundle(t)).Peer.Subnet; got != "000001" {
		t.Errorf("subnet %s, want 000001", got)
	}
}

// No certificate is signed while the subnet of a peer cannot be determined, and the error
// names the file. Files in certs/ that are not certificates of peers are ignored.
func TestUnknownSubnetsStopSigning(t *testing.T) {
	a := nodetest.New(t, aa, "aa.example.com:1234")
	p := a.Sign(t, nodetest.New(t, da, "x.example.com:1").Bundle(t)).Peer
	folder, copied := filepath.Join(a.Path(), "peers", p.Identity.ID), filepath.Join(a.Path(), "certs", fmt.Sprintf("%032X.pem", p.Issued.SerialNumber))
	sign := func() error {
		t.Helper()
		before := snapshot(t, a.Path())
		_, err := a.SignPeer(ctx, nodetest.ReadBundle(t, nodetest.New(t, da, "y.example.com:1").Bundle(t)), keyOf(a))
		if err != nil && snapshot(t, a.Path()) != before {
			t.Error("the directory has changed")
		}
		return err
	}
	good := func(what string) {
		t.Helper()
		if err := sign(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	bad := func(what, file string) {
		t.Helper()
		if err := sign(); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: error %v, want one with %q", what, err, file)
		}
	}
	write(t, "# our certificates", a.Path(), "certs", "README.md")
	write(t, "", copied)
	good("an empty copy, while the peer is there")
	write(t, "\x00\x00", folder, "peercert.crt")
	good("a damaged certificate, with subnet.txt")
	write(t, "\x00\x00", folder, "subnet.txt")
	bad("neither", p.Identity.ID)
	remove(t, folder)
	bad("an empty copy", filepath.Base(copied))
	remove(t, copied)
	good("no copy")
	for _, name := range []string{"AB.pem", "sub-ca.crt", "x.DER"} {
		write(t, "half a certificate", a.Path(), "certs", name)
		bad("a file that may be the certificate of a peer", name)
		remove(t, a.Path(), "certs", name)
	}
}

// A certificate that a peer gives back counts in certs/ under any name, in PEM or DER, and
// beside others.
func TestCertificatesGivenBack(t *testing.T) {
	signed := nodetest.New(t, aa, "aa.example.com:1234")
	var peers []*nodetest.Node
	var certs []string
	for range 3 {
		n := nodetest.New(t, ca, "x.example.com:1")
		peers = append(peers, n)
		certs = append(certs, read(t, signed.Sign(t, n.Bundle(t)).CertFile))
	}
	for name, content := range map[string]string{
		"bob.crt":    certs[0],
		"sub-ca.crt": certs[0] + certs[1],
		"X.PEM":      certs[1],
		"noname":     certs[2],
		"x.der":      string(peerCert(t, signed, peers[2]).Raw),
	} {
		older := nodetest.NewWithKey(t, t.TempDir(), aa, "aa.example.com:1234", signed.Key)
		write(t, read(t, signed.Path(), "root-ca.crt"), older.Path(), "root-ca.crt")
		d, err := node.Open(older.Path())
		if err != nil {
			t.Fatal(err)
		}
		write(t, content, older.Path(), "certs", name)
		older.Dir = d
		given := map[string]bool{"bob.crt": true, "sub-ca.crt": true}[name]
		if got := older.Sign(t, nodetest.New(t, ca, "y.example.com:1").Bundle(t)).Peer.Subnet; given && got == "000001" || name == "sub-ca.crt" && got != "000003" {
			t.Errorf("%s: a new peer has the subnet %s", name, got)
		}
		for i, n := range peers {
			if want := fmt.Sprintf("%06d", i+1); strings.Contains(content, certs[i]) || name == "x.der" && i == 2 {
				if got := older.Sign(t, n.Bundle(t)).Peer.Subnet; got != want {
					t.Errorf("%s: peer %d has the subnet %s, want %s", name, i, got, want)
				}
			}
		}
	}
}

// If the certificates of two nodes have the same subnet, because a backup was too old, check
// reports a problem that names both nodes, their files and the remedy, and reports neither
// certificate as safe. The node that is not a peer gets no second certificate, and the remedies
// in the error and in the problem are sufficient.
func TestSubnetOfTwo(t *testing.T) {
	for name, back := range map[string]func(t *testing.T, dir string, p *node.Peer, cert string) (file string){
		"copy": func(t *testing.T, dir string, p *node.Peer, cert string) string {
			file := fmt.Sprintf("certs/%032X.pem", p.Issued.SerialNumber)
			write(t, cert, dir, file)
			return file
		},
		"copy under another name": func(t *testing.T, dir string, p *node.Peer, cert string) string {
			write(t, cert, dir, "certs", "bob.crt")
			return "certs/bob.crt"
		},
		"record": func(t *testing.T, dir string, p *node.Peer, _ string) string {
			file := "db/offline/" + signrecord.Name
			write(t, "", dir, "db", "offline", "last-signed")
			err := signrecord.Add(filepath.Join(dir, file), time.Now(), strings.Repeat("a", 32),
				[]signrecord.Certificate{signrecord.PeerCertificate(p.Identity, p.Root, p.Subnet, "AB")})
			if err != nil {
				t.Fatal(err)
			}
			return file
		},
	} {
		for _, kind := range []nodetype.Type{ca, da} {
			for _, uses := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %v, used: %v", name, kind, uses), func(t *testing.T) {
					t.Parallel()
					a, bob, carol := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, kind, "b.example.com:1"), nodetest.New(t, kind, "c.example.com:1")
					restore := backUp(t, a)
					of := a.Sign(t, bob.Bundle(t)).Peer
					cert := read(t, a.Path(), "peers", of.Identity.ID, "peercert.crt")
					restore()
					if p := a.Sign(t, carol.Bundle(t)).Peer; p.Subnet != of.Subnet {
						t.Fatalf("subnet %s, want %s", p.Subnet, of.Subnet)
					}
					file := back(t, a.Path(), of, cert)
					carols := fmt.Sprintf("certs/%032X.pem", peerCert(t, a, carol).SerialNumber)
					names := []string{of.Identity.ID, file, carol.Identity().ID, "peers/" + carol.Identity().ID + "/peercert.crt"}
					contains := func(what, text string, all ...string) {
						t.Helper()
						for _, part := range all {
							if !strings.Contains(text, part) {
								t.Errorf("%s: %s\nwant %q", what, text, part)
							}
						}
					}
					f := overlap(t, a)
					if f.Severity != check.Problem {
						t.Fatalf("finding %v", f)
					}
					contains("check", f.Text, append(names, "sign its info-bundle again")...)
					before := snapshot(t, a.Path())
					_, err := a.SignPeer(ctx, nodetest.ReadBundle(t, bob.Bundle(t)), keyOf(a))
					contains("signing", fmt.Sprint(err), append(names[:3], of.Subnet, "remove")...)
					if snapshot(t, a.Path()) != before {
						t.Error("the directory has changed")
					}

					if uses { // carol gives the subnet up
						remove(t, a.Path(), "peers", carol.Identity().ID)
						remove(t, a.Path(), carols)
						_, err := a.SignPeer(ctx, nodetest.ReadBundle(t, bob.Bundle(t)), keyOf(a))
						contains("signing", fmt.Sprint(err), "db/subnets", carol.Identity().ID, "remove")
						remove(t, reservation(a.Path(), of))
						if got := a.Sign(t, bob.Bundle(t)).Peer.Subnet; got != of.Subnet {
							t.Errorf("subnet %s, want %s", got, of.Subnet)
						}
						a.Sign(t, carol.Bundle(t))
					} else {
						remove(t, a.Path(), file)
						a.Sign(t, bob.Bundle(t))
					}
					if f := overlap(t, a); f != (check.Finding{}) {
						t.Errorf("the remedy is not sufficient: %v", f)
					}
				})
			}
		}
	}

	// The other remedy: the link with one of the nodes is deactivated.
	a, bob, carol := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "b.example.com:1"), nodetest.New(t, ca, "c.example.com:1")
	nodetest.Peer(t, a, carol)
	write(t, "", a.Path(), "db", "offline", "last-signed")
	err := signrecord.Add(filepath.Join(a.Path(), "db", "offline", signrecord.Name), time.Now(), strings.Repeat("a", 32),
		[]signrecord.Certificate{signrecord.PeerCertificate(bob.Identity(), bob.Root(), "000001", "AB")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.DeactivatePeer(ctx, carol.Identity().ID); err != nil {
		t.Fatal(err)
	}
	if f := overlap(t, a); f.Severity != check.Note {
		t.Errorf("finding %v, want a note, since one is deactivated", f)
	}
}

// overlap returns the finding that two nodes have one subnet. It checks that no certificate with
// such a subnet is said to be safe.
func overlap(t *testing.T, a *nodetest.Node) (found check.Finding) {
	t.Helper()
	r, err := check.Run(ctx, a.Path(), check.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Findings {
		if f.Rule == check.RuleSubnetOverlap {
			found = f
		}
	}
	for _, f := range r.Findings {
		if f.Rule == check.RuleCopyUnused && found.Severity == check.Problem && strings.Contains(f.Text, "given to no other node") {
			t.Errorf("a certificate is wrongly reported as safe: %v", f)
		}
	}
	return found
}

func peerCert(t *testing.T, a, of *nodetest.Node) *x509.Certificate {
	t.Helper()
	p, err := a.Peer(of.Identity().ID)
	if err != nil {
		t.Fatal(err)
	}
	return p.Issued
}

// init does not release the last record of a subnet: a reservation for a node that has a
// certificate according to db/index, while the peer and the copy of the certificate are lost.
func TestLastRecordIsNotReleased(t *testing.T) {
	for _, owner := range []string{"", "?\n"} {
		a := nodetest.New(t, aa, "aa.example.com:1234")
		p := a.Sign(t, nodetest.New(t, da, "x.example.com:1").Bundle(t)).Peer
		remove(t, a.Path(), "certs")
		remove(t, a.Path(), "peers")
		if owner != "" {
			write(t, owner, reservation(a.Path(), p))
		}
		if _, err := a.Repair(ctx); err != nil {
			t.Fatal(err)
		}
		if got := a.Sign(t, nodetest.New(t, da, "y.example.com:1").Bundle(t)).Peer.Subnet; got == p.Subnet {
			t.Errorf("two peers have the subnet %s", got)
		}
	}
}

// The subnet of a peer is the one in its certificate: while the file with the subnet has
// another content, the peer cannot be used. init corrects the file.
func TestSubnetFileMustBeThatOfCertificate(t *testing.T) {
	a, c, d := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234"), nodetest.New(t, da, "da.example.com:1234")
	nodetest.Peer(t, a, c)
	nodetest.Peer(t, a, d)
	for _, tt := range []struct {
		of         *nodetest.Node
		peer, file string
	}{
		{a, c.Identity().ID, "peers/" + c.Identity().ID + "/subnet.txt"},
		{a, d.Identity().ID, "peers/" + d.Identity().ID + "/subnet.txt"},
		{c, nodetest.AAID, "peers/" + nodetest.AAID + "/masq-subnet.txt"},
		{d, nodetest.AAID, "debtors-subnet.txt"},
	} {
		good := read(t, tt.of.Path(), tt.file)
		for _, bad := range []string{"", "\x00", good[:4], good[:len(good)-2] + "f\n", good + "x", "0000000000\n"} {
			write(t, bad, tt.of.Path(), tt.file)
			if p, err := tt.of.Peer(tt.peer); err == nil {
				t.Errorf("%s with %q: the peer has the subnet %q", tt.file, bad, p.Subnet)
			}
			if !strings.Contains(bad, "\x00") && !repairable(t, tt.of.Path(), tt.file) {
				t.Errorf("%s with %q: check names no remedy", tt.file, bad)
			}
			if _, err := tt.of.Repair(ctx); err != nil {
				t.Error(err)
			}
			if got := read(t, tt.of.Path(), tt.file); got != good {
				t.Errorf("%s with %q is now %q", tt.file, bad, got)
			}
			if _, err := tt.of.Peer(tt.peer); err != nil {
				t.Error(err)
			}
		}
	}
}

// repairable reports whether check says that a file can be repaired.
func repairable(t *testing.T, dir, file string) bool {
	t.Helper()
	r, err := check.Run(ctx, dir, check.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(r.Findings, func(f check.Finding) bool { return f.Subject == file && f.Repairable })
}

// The counter determines only where the search begins: free subnets are found even if the
// counter is damaged or too high.
func TestCounterIsNoLimit(t *testing.T) {
	for _, counter := range []string{"", "x\n", "255\n", "300\n", "-7\n", "\x00", "99999999999999999999\n"} {
		a := nodetest.New(t, aa, "aa.example.com:1234")
		write(t, counter, a.Path(), "db", "subnets", "debtors", "SEQNUM")
		if got := a.Sign(t, nodetest.New(t, da, "y.example.com:1").Bundle(t)).Peer.Subnet; got != nodetest.AAID+"00" {
			t.Errorf("counter %q: subnet %s", counter, got)
		}
	}
}

// The subnet in a waiting request is given to no other peer, even if its reservation is lost,
// and to its peer as long as that is known.
func TestRequestedSubnets(t *testing.T) {
	for _, lost := range []bool{false, true} {
		a, asked := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, da, "x.example.com:1")
		subnet, err := "", error(nil)
		if err := a.Locked(ctx, func(l *node.Locked) error {
			subnet, err = l.ReserveSubnet(ctx, asked.Identity())
			return err
		}); err != nil {
			t.Fatal(err)
		}
		write(t, `{"peer_certs": [{"subnet": "`+subnet+`"}]}`, a.Path(), "db", "offline", "x.json")
		if lost {
			remove(t, a.Path(), "db", "subnets")
		}
		if _, err := a.Repair(ctx); err != nil {
			t.Fatal(err)
		}
		if got := a.Sign(t, nodetest.New(t, da, "y.example.com:1").Bundle(t)).Peer.Subnet; got == subnet {
			t.Errorf("another peer has the subnet %s of a request", got)
		}
		if got := a.Sign(t, asked.Bundle(t)).Peer.Subnet; lost != (got != subnet) {
			t.Errorf("the peer has the subnet %s, reserved was %s, reservation lost: %v", got, subnet, lost)
		}
	}
}

// A certificate that has come back, although an older backup of the directory has given its subnet
// to another peer in a request that waits, is a problem, and its peer is given no other subnet.
func TestRequestHidesNoContradiction(t *testing.T) {
	for _, kind := range []nodetype.Type{ca, da} {
		a, bob, carol := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, kind, "b.example.com:1"), nodetest.New(t, kind, "c.example.com:1")
		restore := backUp(t, a)
		of := a.Sign(t, bob.Bundle(t)).Peer
		cert := read(t, a.Path(), "peers", of.Identity.ID, "peercert.crt")
		restore()
		err := a.Locked(ctx, func(l *node.Locked) error {
			subnet, err := l.ReserveSubnet(ctx, carol.Identity())
			if subnet != of.Subnet {
				t.Errorf("subnet %s, want %s", subnet, of.Subnet)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		write(t, `{"peer_certs": [{"subnet": "`+of.Subnet+`"}]}`, a.Path(), "db", "offline", "x.json")
		write(t, cert, a.Path(), "certs", "bob.crt")
		for range 2 { // the second time, bob's ID has a reservation, perhaps
			_, err := a.SignPeer(ctx, nodetest.ReadBundle(t, bob.Bundle(t)), keyOf(a))
			if err == nil || !strings.Contains(err.Error(), "certs/bob.crt") || !strings.Contains(err.Error(), carol.Identity().ID) {
				t.Errorf("%v: signing: %v", kind, err)
			}
		}
		found := false
		r, err := check.Run(ctx, a.Path(), check.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range r.Findings {
			found = found || f.Severity == check.Problem && strings.Contains(f.Text, "certs/bob.crt") && strings.Contains(f.Text, carol.Identity().ID)
		}
		if !found {
			t.Errorf("%v: check does not report that certs/bob.crt and the reservation contradict each other", kind)
		}
	}
}

// backUp copies the directory of a node. restore puts the copy in place of the directory.
func backUp(t *testing.T, a *nodetest.Node) (restore func()) {
	t.Helper()
	backup := filepath.Join(t.TempDir(), "backup")
	if err := os.CopyFS(backup, os.DirFS(a.Path())); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		remove(t, a.Path())
		if err := os.Rename(backup, a.Path()); err != nil {
			t.Fatal(err)
		}
	}
}

// A peer whose certificates have different subnets is given none of them before the operator has
// removed the wrong one, and the error names both files. After that, the peer has the subnet in
// the remaining certificate, whatever is reserved.
func TestSeveralSubnetsOfOne(t *testing.T) {
	for _, kind := range []nodetype.Type{ca, da} {
		a, bob, carol := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, kind, "b.example.com:1"), nodetest.New(t, kind, "c.example.com:1")
		restore := backUp(t, a)
		a.Sign(t, carol.Bundle(t))
		of := a.Sign(t, bob.Bundle(t)).Peer
		cert := read(t, a.Path(), "peers", of.Identity.ID, "peercert.crt")
		restore()
		wrong := a.Sign(t, bob.Bundle(t)).Peer
		if wrong.Subnet == of.Subnet {
			t.Fatal("the backup has not changed the assigned subnet")
		}
		remove(t, a.Path(), "peers", of.Identity.ID)
		write(t, cert, a.Path(), "certs", "bob.crt")
		file := fmt.Sprintf("certs/%032X.pem", wrong.Issued.SerialNumber)
		_, err := a.SignPeer(ctx, nodetest.ReadBundle(t, bob.Bundle(t)), keyOf(a))
		for _, part := range []string{"certs/bob.crt", of.Subnet, file, wrong.Subnet, "remove"} {
			if !strings.Contains(fmt.Sprint(err), part) {
				t.Errorf("%v: error %v, want %q", kind, err, part)
			}
		}
		remove(t, a.Path(), file)
		if got := a.Sign(t, bob.Bundle(t)).Peer.Subnet; got != of.Subnet {
			t.Errorf("%v: subnet %s, want %s", kind, got, of.Subnet)
		}
	}
}

// If one of two nodes that have the same subnet has been deactivated, the other one can get the
// subnet again.
func TestSubnetOfDeactivated(t *testing.T) {
	a, bob, carol := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "b.example.com:1"), nodetest.New(t, ca, "c.example.com:1")
	restore := backUp(t, a)
	of := a.Sign(t, bob.Bundle(t)).Peer
	cert := read(t, a.Path(), "peers", of.Identity.ID, "peercert.crt")
	restore()
	nodetest.Peer(t, a, carol)
	write(t, cert, a.Path(), "certs", "bob.crt")
	if _, err := a.SignPeer(ctx, nodetest.ReadBundle(t, bob.Bundle(t)), keyOf(a)); err == nil {
		t.Error("signed beside an active peer with the same subnet")
	}
	if _, err := a.DeactivatePeer(ctx, carol.Identity().ID); err != nil {
		t.Fatal(err)
	}
	if got := a.Sign(t, bob.Bundle(t)).Peer.Subnet; got != of.Subnet {
		t.Errorf("subnet %s, want %s", got, of.Subnet)
	}
	if got := a.Sign(t, nodetest.New(t, ca, "d.example.com:1").Bundle(t)).Peer.Subnet; got == of.Subnet {
		t.Error("another peer has the same subnet")
	}
}

// A certificate that was signed on this machine for a request counts, although it was filed
// on another machine: its subnet is not given to another peer, and its peer has no other
// root key.
func TestSignedForRequests(t *testing.T) {
	a, evil := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, da, "evil.example.com:1")
	other := nodetest.New(t, da, "x.example.com:1")
	record := filepath.Join(a.Path(), "db", "offline", signrecord.Name)
	write(t, "", filepath.Dir(record), "last-signed")
	err := signrecord.Add(record, time.Now(), strings.Repeat("a", 32), []signrecord.Certificate{
		signrecord.PeerCertificate(other.Identity(), other.Root(), nodetest.AAID+"00", "AB"),
		signrecord.PeerCertificate(evil.Identity(), other.Root(), nodetest.AAID+"01", "AC"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := a.Sign(t, nodetest.New(t, da, "y.example.com:1").Bundle(t)).Peer.Subnet; got != nodetest.AAID+"02" {
		t.Errorf("subnet %s, want one that was not given", got)
	}
	if got := a.Sign(t, other.Bundle(t)).Peer.Subnet; got != nodetest.AAID+"00" {
		t.Errorf("subnet %s, want the one in the certificate that the peer has", got)
	}
	before := snapshot(t, a.Path())
	if _, err := a.SignPeer(ctx, nodetest.ReadBundle(t, evil.Bundle(t)), keyOf(a)); err == nil || !strings.Contains(err.Error(), "could impersonate") {
		t.Errorf("error %v for another root certificate", err)
	}
	if snapshot(t, a.Path()) != before {
		t.Error("the directory has changed")
	}
	write(t, "", record)
	if _, err := a.SignPeer(ctx, nodetest.ReadBundle(t, nodetest.New(t, da, "z.example.com:1").Bundle(t)), keyOf(a)); err == nil || !strings.Contains(err.Error(), record) {
		t.Errorf("error %v for an empty record, want one with its name", err)
	}
}
