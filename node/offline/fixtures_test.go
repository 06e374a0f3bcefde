package offline

import (
	"context"
	"crypto"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"peerlink/node"
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

// snapshot maps the names of everything below dir to mode and content.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		all[name] = fi.Mode().String()
		if !e.IsDir() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			all[name] += fmt.Sprintf(" %x", sha256.Sum256(data))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// sameTree checks that a directory has the content that it had.
func sameTree(t testing.TB, dir string, want map[string]string) {
	t.Helper()
	got := snapshot(t, dir)
	for name, was := range want {
		if got[name] != was {
			t.Errorf("%s was changed or removed", name)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s has come to be", name)
		}
	}
}

func readFileT(t testing.TB, elem ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func writeFileT(t testing.TB, data string, elem ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(elem...), []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// serverCSR is a request by a new server key of the node.
func serverCSR(t testing.TB, id pki.Identity) []byte {
	t.Helper()
	key, err := pki.GenerateKey(pki.P256)
	if err != nil {
		t.Fatal(err)
	}
	der, err := pki.NewCSR(id, key, pki.ServerCSR)
	if err != nil {
		t.Fatal(err)
	}
	return pki.EncodeCSRPEM(der)
}

// askPeer asks for the peer certificate of another node.
func askPeer(t testing.TB, n *nodetest.Node) PeerCert {
	t.Helper()
	return PeerCert{Bundle: readFileT(t, n.Bundle(t))}
}

func mustCollect(t testing.TB, d *node.Dir, asks ...Requested) *Request {
	t.Helper()
	r, err := Collect(ctx, d, asks, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// signed carries the request over and the answer back.
func signed(t testing.TB, r *Request, key crypto.Signer) *Answer {
	t.Helper()
	carried, err := ReadRequest(r.Encode(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	a, err := Fulfil(carried, key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if a, err = ReadAnswer(a.Encode()); err != nil {
		t.Fatal(err)
	}
	return a
}

func mustFile(t testing.TB, d *node.Dir, a *Answer) []FiledItem {
	t.Helper()
	done, err := File(ctx, d, a, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// everything is a request with all that an accounting authority can ask for.
func everything(t testing.TB) (n *nodetest.Node, asks []Requested, out string) {
	t.Helper()
	n, out = nodetest.New(t, aa, "aa.example.com:1234"), t.TempDir()
	return n, []Requested{
		ServerCert{CSR: serverCSR(t, n.Identity()), Days: 90, File: filepath.Join(out, "server.crt")},
		askPeer(t, nodetest.New(t, ca, "ca.example.com:1234")),
		askPeer(t, nodetest.New(t, da, "da.example.com:1234")),
		InfoBundle{File: filepath.Join(out, "bundle.zip")},
	}, out
}

// checkOutputs checks that all that was asked for is in its place.
func checkOutputs(t testing.TB, d *node.Dir, r *Request) {
	t.Helper()
	for _, s := range r.servers {
		cert, err := pki.ParseCertificatePEM(readFileT(t, s.file))
		if err != nil || cert.SerialNumber.Cmp(s.serial) != 0 {
			t.Errorf("%s: %v", s.file, err)
		}
	}
	for _, p := range r.peers {
		got, err := d.Peer(p.bundle.Identity.ID)
		if err != nil {
			t.Error(err)
			continue
		}
		if got.State() != "signed" || got.Subnet != p.subnet || got.Issued.SerialNumber.Cmp(p.serial) != 0 {
			t.Errorf("peer %v: state %s, subnet %q, serial %X", got.Identity, got.State(), got.Subnet, got.Issued.SerialNumber)
		}
	}
	if r.info != nil {
		if b := nodetest.ReadBundle(t, r.info.file); b.Identity != d.Identity() || b.UpdatedAt() != r.info.date {
			t.Errorf("info-bundle of %v dated %s", b.Identity, b.UpdatedAt())
		}
	}
}
