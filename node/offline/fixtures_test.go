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

// snapshot maps the names of everything below dir to its mode and the SHA-256 of its content.
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

// sameTree checks that a directory has the content of an earlier snapshot.
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
			t.Errorf("%s was created", name)
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

// serverCSR returns a CSR of the node for a new server key.
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

// peerCertFor returns the item of a request for the peer certificate of another
// node.
func peerCertFor(t testing.TB, n *nodetest.Node) PeerCert {
	t.Helper()
	return PeerCert{Bundle: readFileT(t, n.Bundle(t))}
}

func mustCollect(t testing.TB, d *node.Dir, items ...Requested) *Request {
	t.Helper()
	r, err := Collect(ctx, d, items, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// signed signs a request, and returns the answer. Both are encoded and read again,
// as if they were transported between the machines.
func signed(t testing.TB, r *Request, key crypto.Signer) *Answer {
	t.Helper()
	return signedAt(t, r, key, time.Now())
}

// signedAt is signed on a machine with another clock.
func signedAt(t testing.TB, r *Request, key crypto.Signer, now time.Time) *Answer {
	t.Helper()
	carried, err := ReadRequest(r.Encode(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	a, err := Fulfil(carried, key, now)
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

// fullRequest makes an accounting authority, and the items of a request with everything
// that it can request. out is the folder of the requested files.
func fullRequest(t testing.TB) (n *nodetest.Node, items []Requested, out string) {
	t.Helper()
	n, out = nodetest.New(t, aa, "aa.example.com:1234"), t.TempDir()
	return n, []Requested{
		ServerCert{CSR: serverCSR(t, n.Identity()), Days: 90, File: filepath.Join(out, "server.crt")},
		peerCertFor(t, nodetest.New(t, ca, "ca.example.com:1234")),
		peerCertFor(t, nodetest.New(t, da, "da.example.com:1234")),
		InfoBundle{File: filepath.Join(out, "bundle.zip")},
	}, out
}

// checkOutputs checks that the results of all items of a request were filed.
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
