package node_test

import (
	"crypto"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerlink/node"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/node/signrecord"
)

// A subnet that was given to a peer is never given to another one, whichever of the records
// of it are lost or come from an older backup, with and without a Repair: one record that is
// left is enough. The peer itself gets the same subnet again.
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
						return // nothing is left then
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

// olderReservations makes db/subnets what it was before the peer was signed.
func olderReservations(t *testing.T, dir string, p *node.Peer) {
	t.Helper()
	file := reservation(dir, p)
	remove(t, file)
	write(t, map[nodetype.Type]string{ca: "0\n", da: "-1\n"}[p.Identity.Type], filepath.Dir(file), "SEQNUM")
}

// A subnet that is a part of another peer's subnet, or of which that is a part, is not free.
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

// Nothing is signed while the subnet of a peer can not be known, and the error names the
// file. Files in certs/ that are no certificates of peers do not matter.
func TestUnknownSubnetsStopSigning(t *testing.T) {
	a := nodetest.New(t, aa, "aa.example.com:1234")
	p := a.Sign(t, nodetest.New(t, da, "x.example.com:1").Bundle(t)).Peer
	folder, copied := filepath.Join(a.Path(), "peers", p.Identity.ID), filepath.Join(a.Path(), "certs", fmt.Sprintf("%X", p.Issued.SerialNumber)+".pem")
	a.ServerCert(t)
	write(t, "rubbish", a.Path(), "certs", "AB.pem")
	write(t, "rubbish", a.Path(), "certs", "notes.pem")
	sign := func() error {
		t.Helper()
		before := snapshot(t, a.Path())
		_, err := a.SignPeer(ctx, nodetest.ReadBundle(t, nodetest.New(t, da, "y.example.com:1").Bundle(t)), keyOf(a))
		if err != nil && snapshot(t, a.Path()) != before {
			t.Error("the directory has changed")
		}
		return err
	}
	if err := sign(); err != nil {
		t.Errorf("rubbish in certs/: %v", err)
	}
	// The copy is not needed while the peer is there.
	write(t, "", copied)
	if err := sign(); err != nil {
		t.Errorf("empty copy: %v", err)
	}
	for _, damage := range []func(){
		func() { write(t, "", folder, "subnet.txt"); remove(t, folder, "peercert.crt") },
		func() {
			write(t, "\x00\x00", folder, "peercert.crt")
			write(t, nodetest.AAID+"00\n", folder, "subnet.txt")
		},
	} {
		damage()
		if err := sign(); err == nil || !strings.Contains(err.Error(), p.Identity.ID) {
			t.Errorf("error %v, want one with the peer's ID", err)
		}
	}
	remove(t, folder)
	if err := sign(); err == nil || !strings.Contains(err.Error(), filepath.Base(copied)) || !strings.Contains(err.Error(), p.Identity.ID) {
		t.Errorf("error %v, want one with the file and the peer's ID", err)
	}
	remove(t, copied)
	if err := sign(); err != nil {
		t.Error(err)
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
	if _, err := a.SignPeer(ctx, nodetest.ReadBundle(t, evil.Bundle(t)), keyOf(a)); err == nil || !strings.Contains(err.Error(), "break-in") {
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
