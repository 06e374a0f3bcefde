package node_test

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerlink/node"
	"peerlink/node/check"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// A peer certificate that was signed with a clock that was ahead is replaced by signing the
// info-bundle again, with the same subnet, and the peer can register that one, also if it has
// registered the first. Every message on the way names the next step. A certificate that is
// valid is never replaced, and the key is not asked for.
func TestPeerCertificateOfWrongClock(t *testing.T) {
	for _, kind := range []nodetype.Type{ca, da} {
		for _, registered := range []bool{false, true} {
			a, b := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, kind, "b.example.com:1")
			a.Sign(t, nodetest.New(t, kind, "x.example.com:1").Bundle(t)) // so that the peer's subnet is not the first one
			subnet := a.Sign(t, b.Bundle(t)).Peer.Subnet
			b.Sign(t, a.Bundle(t))
			id, folder := b.Identity().ID, filepath.Join(a.Path(), "peers", b.Identity().ID)
			file := filepath.Join(folder, "peercert.crt")
			early := string(pki.EncodeCertificatePEM(peerCertAt(t, a, b, subnet, time.Now().AddDate(1, 0, 0))))
			write(t, early, file)
			if registered { // with a clock that was ahead, too
				write(t, subnet+"\n", b.Path(), map[nodetype.Type]string{ca: "peers/" + nodetest.AAID + "/masq-subnet.txt", da: "debtors-subnet.txt"}[kind])
				write(t, early, b.Path(), "peers", nodetest.AAID, "sub-ca.crt")
				wants(t, "check of the holder", problemText(t, b, check.RuleDates), "peer register")
			} else {
				_, _, err := b.RegisterPeer(ctx, []byte(early))
				wants(t, "registering", fmt.Sprint(err), "valid only from", "clock", nodetest.AAID, "again")
			}
			wants(t, "check", problemText(t, a, check.RuleDates), "valid only from", "clock", "peerlink peer sign")
			err := a.Locked(ctx, func(l *node.Locked) error { return l.CheckNewPeer(nodetest.ReadBundle(t, b.Bundle(t))) })
			wants(t, "a request", fmt.Sprint(err), "not valid now", "peer sign", folder)

			res := a.Sign(t, b.Bundle(t))
			if !res.Renewed || res.New || res.Peer.Subnet != subnet {
				t.Errorf("renewed: %v, new: %v, subnet %s, want %s", res.Renewed, res.New, res.Peer.Subnet, subnet)
			}
			if p, already, err := b.RegisterPeer(ctx, []byte(read(t, file))); err != nil || already || p.Subnet != subnet {
				t.Errorf("registering the new one: %v, %v", already, err)
			}
			noKey := func() (crypto.Signer, error) { return nil, errors.New("the key was asked for") }
			if res, err := a.SignPeer(ctx, nodetest.ReadBundle(t, b.Bundle(t)), noKey); err != nil || res.Renewed {
				t.Errorf("once more: %v", err)
			}
			if r, err := check.Run(ctx, a.Path(), check.Options{}); err != nil || !r.OK() {
				t.Errorf("after that: %v, %v", r.Findings, err)
			}

			write(t, early, file)
			write(t, "2024-01-01\n", folder, "DEACTIVATED")
			if res, err := a.SignPeer(ctx, nodetest.ReadBundle(t, b.Bundle(t)), noKey); err != nil || res.Renewed {
				t.Errorf("a deactivated peer %s: %v", id, err)
			}
		}
	}
}

// A second certificate does not replace a registered one that is valid, and the error says what
// that means: nothing if the subnets are the same.
func TestRegisteredIsKept(t *testing.T) {
	a, b := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "b.example.com:1")
	nodetest.Peer(t, a, b)
	for subnet, want := range map[string]string{"000001": "still in use", "000002": "sub-ca.crt"} {
		before := snapshot(t, b.Path())
		_, _, err := b.RegisterPeer(ctx, pki.EncodeCertificatePEM(peerCertAt(t, a, b, subnet, time.Now())))
		wants(t, subnet, fmt.Sprint(err), "registered already", want)
		if snapshot(t, b.Path()) != before {
			t.Error("the directory has changed")
		}
	}
}

// A node whose root certificate is not valid yet is incomplete: every function that needs the
// certificate, init and check report that the clock was wrong, and how to make the node again.
// The same applies if only the copy in certs/ is left. The remedy works with the same root key.
func TestRootOfWrongClock(t *testing.T) {
	for _, kind := range []nodetype.Type{aa, ca} {
		n := nodetest.New(t, kind, "n.example.com:1234")
		serial := big.NewInt(0xabcdef)
		root, err := pki.SelfSign(n.Identity(), n.Key, serial, time.Now().AddDate(1, 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		line, err := node.IndexLine(root)
		if err != nil {
			t.Fatal(err)
		}
		remove(t, n.Path(), "certs")
		remove(t, n.Path(), "db", "info-bundle.zip")
		write(t, "", n.Path(), "certs", ".keep")
		write(t, line, n.Path(), "db", "index")
		for _, file := range []string{"root-ca.crt", "certs/ABCDEF.pem"} {
			write(t, string(pki.EncodeCertificatePEM(root)), n.Path(), file)
		}
		d, err := node.Open(n.Path())
		if err != nil {
			t.Fatal(err)
		}
		n.Dir = d
		remedy := []string{"valid only from", "clock", "remove root-ca.crt and the folders db, certs and peers", "peerlink init"}
		wants(t, "check", problemText(t, n, check.RuleDates), remedy...)
		wants(t, "init", fmt.Sprint(d.CheckRootDates(time.Now())), remedy...)
		wants(t, "bundle", fmt.Sprint(d.CreateBundle(ctx, filepath.Join(t.TempDir(), "b.zip"), n.Key)), remedy...)
		other := nodetest.New(t, map[nodetype.Type]nodetype.Type{aa: ca, ca: aa}[kind], "o.example.com:1234")
		_, err = d.SignPeer(ctx, nodetest.ReadBundle(t, other.Bundle(t)), keyOf(n))
		wants(t, "sign", fmt.Sprint(err), remedy...)

		o := node.InitOptions{Type: kind, Servers: []string{"n.example.com:1234"}, Key: n.Key}
		if kind == aa {
			o.ID = nodetest.AAID
		}
		remove(t, n.Path(), "root-ca.crt")
		_, err = node.Init(ctx, n.Path(), o)
		wants(t, "init without root-ca.crt", fmt.Sprint(err), append(remedy, "certs/ABCDEF.pem")...)
		if strings.Contains(err.Error(), "no copy") {
			t.Errorf("init without root-ca.crt: %v", err)
		}
		wants(t, "check without root-ca.crt", problemText(t, n, check.RuleCertMissing), append(remedy, "certs/ABCDEF.pem")...)

		for _, name := range []string{"root-ca.crt", "db", "certs", "peers"} {
			remove(t, n.Path(), name)
		}
		if n.Dir, err = node.Init(ctx, n.Path(), o); err != nil {
			t.Fatal(err)
		}
		if r, err := check.Run(ctx, n.Path(), check.Options{}); err != nil || !r.OK() || n.CheckRootDates(time.Now()) != nil {
			t.Errorf("after that: %v, %v", r, err)
		}
		other.Sign(t, n.Bundle(t))
	}
}

// peerCertAt returns a certificate that a signs for b with a clock that shows now.
func peerCertAt(t *testing.T, a, b *nodetest.Node, subnet string, now time.Time) *x509.Certificate {
	t.Helper()
	cert, err := (&pki.Authority{Cert: a.Root(), Key: a.Key}).SignPeer(b.Root(), subnet, big.NewInt(now.UnixNano()), now)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// problemText returns the text of the first problem about a rule.
func problemText(t *testing.T, n *nodetest.Node, rule check.Rule) string {
	t.Helper()
	r, err := check.Run(ctx, n.Path(), check.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Findings {
		if f.Rule == rule && f.Severity == check.Problem {
			return f.Text
		}
	}
	return ""
}

// wants checks that a text has all parts.
func wants(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s: %q, want %q", what, text, part)
		}
	}
}
