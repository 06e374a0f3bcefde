package node_test

import (
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerlink/node"
	"peerlink/node/check"
	"peerlink/node/nodetest"
	"peerlink/node/pki"
)

// A lost root-ca.crt, db/nodetype or db/nodeid is restored byte by byte without the root
// key, and "peerlink check" names that remedy.
func TestRestore(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lost  []string // the first one is restored, the others stay lost
		other string   // another file that is restored as well
	}{
		{"root certificate, from the published bundle", []string{"root-ca.crt", "certs"}, ""},
		{"root certificate, from certs", []string{"root-ca.crt", "db/info-bundle.zip"}, ""},
		{"root certificate, with an empty db/index", []string{"root-ca.crt", "db/index"}, ""},
		{"type", []string{"db/nodetype"}, ""},
		{"ID", []string{"db/nodeid"}, ""},
		{"type and ID", []string{"db/nodetype"}, "db/nodeid"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := nodetest.New(t, ca, "ca.example.com:1234")
			nodetest.Peer(t, a, nodetest.New(t, aa, "aa.example.com:1234"))
			want := read(t, a.Path(), tt.lost[0])
			for _, name := range append(tt.lost, tt.other) {
				if name != "" {
					remove(t, a.Path(), name)
				}
			}
			if _, err := node.Open(a.Path()); !errors.Is(err, node.ErrNotNode) || !strings.Contains(err.Error(), `"peerlink init", without a type, restores it`) {
				t.Errorf("the error of Open has no remedy: %v", err)
			}
			if f := finding(t, a.Path(), tt.lost[0]); !f.Repairable || !strings.Contains(f.Text, `"peerlink init", without a type`) {
				t.Errorf("check has no remedy: %+v", f)
			}
			done, err := node.Restore(ctx, a.Path())
			if err != nil || len(done) == 0 {
				t.Fatalf("%q, %v", done, err)
			}
			if got := read(t, a.Path(), tt.lost[0]); got != want {
				t.Errorf("%s has changed:\n%s", tt.lost[0], got)
			}
			d, err := node.Open(a.Path())
			if err != nil || d.Identity() != a.Identity() {
				t.Fatalf("%v, %v", d, err)
			}
			if done, err := node.Restore(ctx, a.Path()); err != nil || len(done) > 0 {
				t.Errorf("a second time: %q, %v", done, err)
			}
		})
	}
}

// A damaged file is restored like a missing one, and is kept unless it is blank. Open and
// check name the remedy.
func TestRestoreDamaged(t *testing.T) {
	const root, id, kind = "root-ca.crt", "db/nodeid", "db/nodetype"
	for damage, do := range map[string]func(s string) string{
		"empty":           func(string) string { return "" },
		"zeros":           func(s string) string { return strings.Repeat("\x00", len(s)) },
		"half":            func(s string) string { return s[:len(s)/2] },
		"half, and zeros": func(s string) string { return s[:len(s)/2] + strings.Repeat("\x00", len(s)-len(s)/2) },
		"rubbish":         func(string) string { return "\xffrubbish" },
	} {
		for _, files := range [][]string{{root}, {id}, {kind}, {id, kind}, {root, id}, {root, kind}, {root, id, kind}} {
			t.Run(damage+" "+strings.Join(files, " "), func(t *testing.T) {
				t.Parallel()
				a := nodetest.New(t, ca, "ca.example.com:1234")
				nodetest.Peer(t, a, nodetest.New(t, aa, "aa.example.com:1234"))
				want := make(map[string]string)
				for _, name := range files {
					want[name] = read(t, a.Path(), name)
					write(t, do(want[name]), a.Path(), name)
				}
				if _, err := node.Open(a.Path()); !errors.Is(err, node.ErrNotNode) || !strings.Contains(err.Error(), `"peerlink init", without a type, restores`) {
					t.Errorf("the error of Open has no remedy: %v", err)
				}
				if len(files) == 1 {
					if f := finding(t, a.Path(), files[0]); !f.Repairable {
						t.Errorf("check has no remedy: %+v", f)
					}
				}
				done, err := node.Restore(ctx, a.Path())
				if err != nil || len(done) != len(files) {
					t.Fatalf("%q, %v", done, err)
				}
				for name, content := range want {
					if got := read(t, a.Path(), name); got != content {
						t.Errorf("%s is now %q", name, got)
					}
					kept, err := os.ReadFile(filepath.Join(a.Path(), name+".damaged"))
					if blank := damage == "empty" || damage == "zeros"; blank != (err != nil) || !blank && string(kept) != do(content) {
						t.Errorf("the damaged file: %q, %v", kept, err)
					}
				}
				if _, err := node.Open(a.Path()); err != nil {
					t.Error(err)
				}
				if done, err := node.Restore(ctx, a.Path()); err != nil || len(done) > 0 {
					t.Errorf("a second time: %q, %v", done, err)
				}
			})
		}
	}
}

// A damaged root-ca.csr is made anew with the next info-bundle.
func TestDamagedRootCSR(t *testing.T) {
	a := nodetest.New(t, ca, "ca.example.com:1234")
	a.Bundle(t)
	good := read(t, a.Path(), "db", "root-ca.csr")
	for _, damaged := range []string{"", "\x00\x00", good[:len(good)/2], "rubbish"} {
		write(t, damaged, a.Path(), "db", "root-ca.csr")
		nodetest.ReadBundle(t, a.Bundle(t))
		remove(t, a.Path(), "db", "root-ca.csr.damaged")
	}
}

// Two damaged files are not mixed up: nothing is overwritten.
func TestDamagedTwice(t *testing.T) {
	a := nodetest.New(t, ca, "ca.example.com:1234")
	write(t, "first", a.Path(), "root-ca.crt.damaged")
	write(t, "second", a.Path(), "root-ca.crt")
	before := snapshot(t, a.Path())
	if _, err := node.Restore(ctx, a.Path()); err == nil || !strings.Contains(err.Error(), "root-ca.crt.damaged") {
		t.Errorf("error %v, want one with the name of the earlier file", err)
	}
	if snapshot(t, a.Path()) != before {
		t.Error("the directory has changed")
	}
}

// A well-formed type or ID of another node is not overwritten: Open and check say what has
// to be written into which file, and doing so is sufficient.
func TestOtherIdentity(t *testing.T) {
	for file, other := range map[string]string{"db/nodeid": nobody, "db/nodetype": da.OU()} {
		a := nodetest.New(t, ca, "ca.example.com:1234")
		want := strings.TrimSpace(read(t, a.Path(), file))
		write(t, other+"\n", a.Path(), file)
		if done, err := node.Restore(ctx, a.Path()); err == nil && len(done) > 0 {
			t.Errorf("%s: restored: %q", file, done)
		}
		if _, err := node.Open(a.Path()); err == nil || !strings.Contains(err.Error(), "so write "+want+" into "+file+";") {
			t.Errorf("the error of Open is %v", err)
		}
		if f := finding(t, a.Path(), file); f.Repairable || !strings.Contains(f.Text, want) || !strings.Contains(f.Text, "write that into the file") {
			t.Errorf("check says %+v", f)
		}
		write(t, want, a.Path(), file)
		if _, err := node.Open(a.Path()); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// A lost peer certificate is restored from certs/, and nothing else is put in its place:
// neither the certificate of another peer nor, if there are several, the one with another
// subnet than subnet.txt, or one that is not valid yet.
func TestRestorePeerCertificate(t *testing.T) {
	a, c := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
	nodetest.Peer(t, a, c)
	nodetest.Peer(t, a, nodetest.New(t, ca, "other.example.com:1234"))
	file := "peers/" + c.Identity().ID + "/peercert.crt"
	want := read(t, a.Path(), file)
	issued, err := a.Peer(c.Identity().ID)
	if err != nil {
		t.Fatal(err)
	}
	for i, other := range []struct {
		subnet string
		ahead  time.Duration
	}{{"000777", 0}, {issued.Subnet, 48 * time.Hour}} {
		cert, err := (&pki.Authority{Cert: a.Root(), Key: a.Key}).SignPeer(c.Root(), other.subnet, big.NewInt(int64(0x10+i)), time.Now().Add(other.ahead))
		if err != nil {
			t.Fatal(err)
		}
		write(t, string(pki.EncodeCertificatePEM(cert)), a.Path(), "certs", fmt.Sprintf("1%d.pem", i))
	}
	if _, err := a.Repair(ctx); err != nil { // lists it in db/index
		t.Fatal(err)
	}
	for name, damage := range map[string]func(){
		"missing": func() { remove(t, a.Path(), file) },
		"zeros":   func() { write(t, strings.Repeat("\x00", len(want)), a.Path(), file) },
		"half":    func() { write(t, want[:len(want)/2], a.Path(), file) },
		"rubbish": func() { write(t, "rubbish", a.Path(), file) },
	} {
		t.Run(name, func(t *testing.T) {
			damage()
			if _, err := a.Peer(c.Identity().ID); err == nil || !strings.Contains(err.Error(), `"peerlink init" restores it`) {
				t.Errorf("the error of Peer has no remedy: %v", err)
			}
			if f := finding(t, a.Path(), file); f.Severity != check.Problem || !f.Repairable {
				t.Errorf("check has no remedy: %+v", f)
			}
			done, err := a.Repair(ctx)
			if err != nil || len(done) != 1 || !strings.Contains(done[0], file) {
				t.Errorf("%q, %v", done, err)
			}
			if got := read(t, a.Path(), file); got != want {
				t.Errorf("it is now\n%s", got)
			}
			if done, err := a.Repair(ctx); err != nil || len(done) > 0 {
				t.Errorf("a second time: %q, %v", done, err)
			}
			remove(t, a.Path(), file+".damaged")
		})
	}
	remove(t, a.Path(), file)
	remove(t, a.Path(), "peers", c.Identity().ID, "subnet.txt")
	if done, err := a.Repair(ctx); err == nil || len(done) > 0 {
		t.Errorf("without subnet.txt: %q, %v", done, err)
	}
	if f := finding(t, a.Path(), file); f.Repairable || !strings.Contains(f.Text, "sub-ca.crt") {
		t.Errorf("check says %+v", f)
	}
}

// A damaged certificate from a peer can not be restored: Peer and check say what to do, and
// that is sufficient.
func TestDamagedSubCA(t *testing.T) {
	a, c := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
	nodetest.Peer(t, a, c)
	file, id := "peers/"+c.Identity().ID+"/sub-ca.crt", c.Identity().ID
	write(t, "rubbish", a.Path(), file)
	const remedy = "move the file away, and register the certificate again"
	if _, err := a.Peer(id); err == nil || !strings.Contains(err.Error(), remedy) {
		t.Errorf("the error of Peer has no remedy: %v", err)
	}
	if f := finding(t, a.Path(), file); f.Repairable || !strings.Contains(f.Text, remedy) {
		t.Errorf("check says %+v", f)
	}
	remove(t, a.Path(), file)
	if _, _, err := a.RegisterPeer(ctx, []byte(read(t, c.Path(), "peers", a.Identity().ID, "peercert.crt"))); err != nil {
		t.Fatal(err)
	}
	if p, err := a.Peer(id); err != nil || p.SubCA == nil {
		t.Errorf("%+v, %v", p, err)
	}
}

// finding returns the finding about a file.
func finding(t *testing.T, dir, file string) (found check.Finding) {
	t.Helper()
	r, err := check.Run(ctx, dir, check.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Findings {
		if f.Subject == file {
			found = f
		}
	}
	return found
}

// Init with the root key never makes a second root certificate: it uses the one of which
// there is a copy, and fails if there is none, if the key is another one, or if it is not
// certain which certificate is in use. Restore restores no foreign certificate.
func TestOneRootCertificate(t *testing.T) {
	again := func(n *nodetest.Node) error {
		o := node.InitOptions{Type: n.Identity().Type, Servers: []string{"x.example.com:1"}, Key: n.Key}
		if !o.Type.IDDerived() {
			o.ID = n.Identity().ID
		}
		_, err := node.Init(ctx, n.Path(), o)
		return err
	}
	t.Run("the same again", func(t *testing.T) {
		a := nodetest.New(t, ca, "ca.example.com:1234")
		want := read(t, a.Path(), "root-ca.crt")
		remove(t, a.Path(), "root-ca.crt")
		if err := again(a); err != nil {
			t.Fatal(err)
		}
		if got := read(t, a.Path(), "root-ca.crt"); got != want {
			t.Error("a second root certificate was made")
		}
	})
	refused := func(n *nodetest.Node, key *nodetest.Node, want string) {
		t.Helper()
		before := snapshot(t, n.Path())
		lost := *n
		lost.Key = key.Key
		if err := again(&lost); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("init: %v, want %q", err, want)
		}
		if after := snapshot(t, n.Path()); after != before {
			t.Errorf("init has changed the directory:\n%s\nbefore:\n%s", after, before)
		}
	}
	// A copy of another node's root certificate is no copy of this node's.
	a, stranger := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
	remove(t, a.Path(), "certs")
	write(t, read(t, stranger.Path(), "root-ca.crt"), a.Path(), "certs", "01.pem")
	remove(t, a.Path(), "root-ca.crt")
	refused(a, a, "no copy of it")
	if done, err := node.Restore(ctx, a.Path()); err == nil || len(done) > 0 {
		t.Errorf("restored from another node's certificate: %q, %v", done, err)
	}
	// db/root-ca.csr has another key.
	b, impostor := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, aa, "aa.example.com:1234")
	impostor.Bundle(t)
	write(t, read(t, impostor.Path(), "db", "root-ca.csr"), b.Path(), "db", "root-ca.csr")
	remove(t, b.Path(), "root-ca.crt")
	refused(b, b, "no copy of it")
	// Another root key.
	c := nodetest.New(t, aa, "aa.example.com:1234")
	remove(t, c.Path(), "root-ca.crt")
	refused(c, impostor, "differs from the one in")
	// Two root certificates of the same key.
	d := nodetest.New(t, aa, "aa.example.com:1234")
	second := nodetest.NewWithKey(t, t.TempDir(), aa, "x.example.com:1", d.Key)
	write(t, read(t, second.Path(), "root-ca.crt"), d.Path(), "certs", "FF.pem")
	remove(t, d.Path(), "root-ca.crt")
	refused(d, d, "are both root certificates of the node")
	if done, err := node.Restore(ctx, d.Path()); err == nil || len(done) > 0 {
		t.Errorf("restored although the certificate is not certain: %q, %v", done, err)
	}
}

// A directory with root-ca.crt alone, as for "peerlink key drill", does not become a node
// whose records are lost.
func TestRestoreMakesNoNode(t *testing.T) {
	a := nodetest.New(t, aa, "aa.example.com:1234")
	dir := t.TempDir()
	write(t, read(t, a.Path(), "root-ca.crt"), dir, "root-ca.crt")
	for range 2 {
		before := snapshot(t, dir)
		if done, err := node.Restore(ctx, dir); err != nil || len(done) > 0 {
			t.Errorf("%q, %v", done, err)
		}
		if snapshot(t, dir) != before {
			t.Error("Restore has changed something")
		}
		write(t, "", filepath.Join(dir, "db"), "drill")
	}
}
