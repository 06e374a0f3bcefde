package node_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"peerlink/node"
	"peerlink/node/nodetest"
)

// write writes a file, and the folders that it needs.
func write(t *testing.T, content string, elem ...string) {
	t.Helper()
	path := filepath.Join(elem...)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, elem ...string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(elem...)); err != nil {
		t.Fatal(err)
	}
}

const nobody = "00000000000000000000000000000000"

// Repair changes exactly the files that it returns, and nothing else; a second Repair finds no
// defects.
func TestRepair(t *testing.T) {
	healthy := func(t *testing.T) *nodetest.Node {
		a := nodetest.New(t, aa, "aa.example.com:1234")
		nodetest.Peer(t, a, nodetest.New(t, ca, "ca.example.com:1234"))
		nodetest.Peer(t, a, nodetest.New(t, da, "da.example.com:1234"))
		return a
	}
	const pool = "db/subnets/debtors/"
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, dir string)
		done   []string       // what each line begins with
		after  map[string]any // files: their content, or a check of it; nil if they are gone
	}{
		{"nothing", func(*testing.T, string) {}, nil, nil},
		{"folders", func(t *testing.T, dir string) { remove(t, dir, "certs") }, []string{"certs is missing"}, nil},
		{"constants", func(t *testing.T, dir string) {
			remove(t, dir, "db/index.attr")
			write(t, "", dir, "db/crlnumber")
			remove(t, dir, "db/subnets/creditors/SEQNUM")
		}, []string{"db/index.attr is missing", "db/crlnumber is blank", "db/subnets/creditors/SEQNUM is missing"},
			map[string]any{"db/index.attr": "unique_subject = no\n", "db/crlnumber": "1001\n", "db/subnets/creditors/SEQNUM": "0\n"}},
		{"configuration", func(t *testing.T, dir string) { remove(t, dir, "root-ca.conf") }, []string{"root-ca.conf is missing"},
			map[string]any{"root-ca.conf": func(s string) bool { return strings.Contains(s, nodetest.AAID) }}},
		{"serial number", func(t *testing.T, dir string) { remove(t, dir, "db/serial") }, []string{"db/serial is missing"},
			map[string]any{"db/serial": func(s string) bool { return len(s) == 33 && strings.Trim(s, "0123456789ABCDEF\n") == "" }}},
		{"leftovers", func(t *testing.T, dir string) {
			write(t, "x", dir, ".server.crt.tmp-1")
			write(t, "x", dir, "db", ".index.tmp-12")
			write(t, "x", dir, "peers", ".new-34", "nodeinfo", "x")
			write(t, "x", dir, "peers", ".gitignore")
			write(t, "x", dir, "private", ".root-ca.key.tmp-1")
			write(t, "x", dir, "nodeinfo", ".about.tmp-draft")
		}, []string{".server.crt.tmp-1 was left", "db/.index.tmp-12 was left", "peers/.new-34 was left"},
			map[string]any{".server.crt.tmp-1": nil, "db/.index.tmp-12": nil, "peers/.new-34": nil, "peers/.gitignore": "x",
				"private/.root-ca.key.tmp-1": "x", "nodeinfo/.about.tmp-draft": "x"}},
		{"subnets", func(t *testing.T, dir string) {
			write(t, nobody+"\n", dir, pool+nodetest.AAID+"07")
			write(t, "", dir, pool+nodetest.AAID+"08")
			write(t, "../../x\n", dir, pool+nodetest.AAID+"09")
			write(t, "x", dir, pool+"README")
			write(t, nobody+"\n", dir, "db/subnets/creditors/000009")
			write(t, "9\n", dir, pool+"SEQNUM")
		}, []string{pool + nodetest.AAID + "07 is reserved", pool + nodetest.AAID + "08 is reserved", pool + nodetest.AAID + "09 is reserved"},
			map[string]any{pool + nodetest.AAID + "07": nil, pool + nodetest.AAID + "08": nil, pool + nodetest.AAID + "09": nil, pool + "SEQNUM": "-1\n",
				pool + "README": "x", "db/subnets/creditors/000009": nobody + "\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := healthy(t)
			dir := a.Path()
			tt.damage(t, dir)
			before := contents(t, dir)
			done, err := a.Repair(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if len(done) != len(tt.done) {
				t.Errorf("done: %q, want %d repairs", done, len(tt.done))
			}
			for _, want := range tt.done {
				if !slices.ContainsFunc(done, func(s string) bool { return strings.HasPrefix(s, want) }) {
					t.Errorf("done: %q, want %q among it", done, want)
				}
			}
			after := contents(t, dir)
			for file, want := range tt.after {
				got, there := after[file]
				switch want := want.(type) {
				case nil:
					if there {
						t.Errorf("%s is still there", file)
					}
				case string:
					if got != want {
						t.Errorf("%s holds %q, want %q", file, got, want)
					}
				case func(string) bool:
					if !want(got) {
						t.Errorf("%s holds %q", file, got)
					}
				}
				delete(before, file)
				delete(after, file)
			}
			for file := range before {
				if strings.HasPrefix(file, "peers/.new-") { // as a whole, see above
					delete(before, file)
				}
			}
			if got, want := names(after), names(before); !slices.Equal(got, want) {
				t.Errorf("files are now %q, want %q", got, want)
			}
			for file, content := range before {
				if after[file] != content {
					t.Errorf("%s has changed", file)
				}
			}
			if done, err := a.Repair(ctx); err != nil || len(done) > 0 {
				t.Errorf("a second repair: %q, %v", done, err)
			}
		})
	}
}

// contents reads all files of a directory, by slash-separated name.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		all[filepath.ToSlash(rel)] = read(t, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func names(files map[string]string) (names []string) {
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// A lost index is restored with every certificate of which there is a copy, and
// only with certificates that this node has signed.
func TestRepairIndex(t *testing.T) {
	a, c := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
	nodetest.Peer(t, a, c)
	a.ServerCert(t)
	want := read(t, a.Path(), "db", "index")
	remove(t, a.Path(), "db", "index")
	// The copy of the peer certificate is lost, and two files do not belong here.
	copies, err := filepath.Glob(filepath.Join(a.Path(), "certs", "*.pem"))
	if err != nil || len(copies) != 3 {
		t.Fatalf("%q, %v", copies, err)
	}
	for _, path := range copies {
		if read(t, path) == read(t, a.Path(), "peers", c.Identity().ID, "peercert.crt") {
			remove(t, path)
		}
	}
	write(t, read(t, c.Path(), "root-ca.crt"), a.Path(), "certs", "AA.pem")
	write(t, "rubbish", a.Path(), "certs", "AB.txt")

	if done, err := a.Repair(ctx); err != nil || len(done) != 1 {
		t.Fatalf("%q, %v", done, err)
	}
	if got := read(t, a.Path(), "db", "index"); !sameLines(got, want) {
		t.Errorf("the index is\n%s\nwant\n%s", got, want)
	}
}

// A line that OpenSSL, which takes no lock, has lost is restored by Repair, and also
// when the next certificate is signed. The other lines are unchanged.
func TestLostIndexLine(t *testing.T) {
	for name, heal := range map[string]func(t *testing.T, a *nodetest.Node){
		"repair": func(t *testing.T, a *nodetest.Node) {
			if done, err := a.Repair(ctx); err != nil || len(done) != 1 {
				t.Fatalf("%q, %v", done, err)
			}
		},
		"sign": func(t *testing.T, a *nodetest.Node) { a.ServerCert(t) },
	} {
		t.Run(name, func(t *testing.T) {
			a, c := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
			nodetest.Peer(t, a, c)
			before := read(t, a.Path(), "db", "index")
			first, rest, _ := strings.Cut(before, "\n")
			write(t, rest, a.Path(), "db", "index")
			heal(t, a)
			after := read(t, a.Path(), "db", "index")
			if !strings.HasPrefix(after, rest) || strings.Count(after, first+"\n") != 1 {
				t.Errorf("the index is\n%s\nafter\n%s", after, before)
			}
			if defects, err := a.Defects(ctx); err != nil || len(defects) != 0 {
				t.Errorf("defects: %+v, %v", defects, err)
			}
		})
	}
}

// sameLines reports whether two texts have the same lines in any order.
func sameLines(a, b string) bool {
	sorted := func(s string) []string { return slices.Sorted(strings.Lines(s)) }
	return slices.Equal(sorted(a), sorted(b))
}

// A debtors subnet is released only if no peer has it in any way: two peers
// with one subnet could issue each other's currencies.
func TestRepairKeepsUsedSubnets(t *testing.T) {
	for _, tt := range []struct {
		name    string
		damage  func(t *testing.T, peer, reservation string)
		fails   bool
		repairs int
	}{
		{"reserved for somebody else", func(t *testing.T, _, reservation string) { write(t, nobody+"\n", reservation) }, false, 0},
		{"reserved for nobody", func(t *testing.T, _, reservation string) { write(t, "", reservation) }, false, 0},
		{"another subnet.txt", func(t *testing.T, peer, _ string) { write(t, nodetest.AAID+"99\n", peer, "subnet.txt") }, false, 1},
		{"no subnet.txt", func(t *testing.T, peer, _ string) { remove(t, peer, "subnet.txt") }, false, 1},
		{"no certificate", func(t *testing.T, peer, _ string) { remove(t, peer, "peercert.crt") }, false, 1},
		{"neither can be read", func(t *testing.T, peer, _ string) {
			remove(t, filepath.Dir(filepath.Dir(peer)), "certs")
			write(t, "?", peer, "peercert.crt")
			write(t, "a\nb\n", peer, "subnet.txt")
		}, true, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, d := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, da, "da.example.com:1234")
			nodetest.Peer(t, a, d)
			reservation := filepath.Join(a.Path(), "db", "subnets", "debtors", nodetest.AAID+"00")
			tt.damage(t, filepath.Join(a.Path(), "peers", d.Identity().ID), reservation)
			done, err := a.Repair(ctx)
			if (err != nil) != tt.fails {
				t.Errorf("error is %v", err)
			}
			if _, err := os.Stat(reservation); err != nil || len(done) != tt.repairs {
				t.Errorf("done: %q; the reservation: %v", done, err)
			}
		})
	}
}

// A released subnet is assigned again, and no subnet of another peer is. A subnet is released
// if all records of the peer's certificate were removed.
func TestRepairedSubnetIsUsedAgain(t *testing.T) {
	a := nodetest.New(t, aa, "aa.example.com:1234")
	first, second, third := nodetest.New(t, da, "x.example.com:1"), nodetest.New(t, da, "x.example.com:1"), nodetest.New(t, da, "x.example.com:1")
	subnetOf := func(n *nodetest.Node) string {
		t.Helper()
		return a.Sign(t, n.Bundle(t)).Peer.Subnet
	}
	lost, kept := subnetOf(first), subnetOf(second)
	p, err := a.Peer(first.Identity().ID)
	if err != nil {
		t.Fatal(err)
	}
	serial := fmt.Sprintf("%032X", p.Issued.SerialNumber)
	remove(t, a.Path(), "certs", serial+".pem")
	lines := slices.DeleteFunc(strings.SplitAfter(read(t, a.Path(), "db", "index"), "\n"), func(s string) bool { return strings.Contains(s, serial) })
	write(t, strings.Join(lines, ""), a.Path(), "db", "index")
	remove(t, a.Path(), "peers", first.Identity().ID)
	if done, err := a.Repair(ctx); err != nil || len(done) != 1 {
		t.Fatalf("%q, %v", done, err)
	}
	if got := subnetOf(third); got != lost || got == kept {
		t.Errorf("subnet %s, want %s again", got, lost)
	}
}

// The counter is set back before a subnet is released: a repair that is killed
// between the two, as by a counter that cannot be written here, would
// otherwise lose the subnet permanently.
func TestRepairResetsCounterFirst(t *testing.T) {
	a := nodetest.New(t, aa, "aa.example.com:1234")
	counter := filepath.Join(a.Path(), "db", "subnets", "debtors", "SEQNUM")
	reservation := filepath.Join(filepath.Dir(counter), nodetest.AAID+"05")
	write(t, nobody+"\n", reservation)
	remove(t, counter)
	write(t, "", counter, "in the way")
	if done, err := a.Repair(ctx); err == nil || len(done) > 0 {
		t.Errorf("done: %q, error %v", done, err)
	}
	if _, err := os.Stat(reservation); err != nil {
		t.Errorf("the reservation is gone: %v", err)
	}
	remove(t, counter)
	if done, err := a.Repair(ctx); err != nil || len(done) != 2 {
		t.Errorf("done: %q, error %v", done, err)
	}
}

// A complete directory needs no repair, so Repair does not take the lock, which needs write
// access and would change the folder's time.
func TestRepairOfComplete(t *testing.T) {
	a := nodetest.New(t, aa, "aa.example.com:1234")
	db, past := filepath.Join(a.Path(), "db"), time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := os.Chtimes(db, past, past); err != nil {
		t.Fatal(err)
	}
	if done, err := a.Repair(ctx); err != nil || len(done) > 0 {
		t.Errorf("done %q, error %v", done, err)
	}
	if done, err := node.Restore(ctx, a.Path()); err != nil || len(done) > 0 {
		t.Errorf("done %q, error %v", done, err)
	}
	if fi, err := os.Stat(db); err != nil || !fi.ModTime().Equal(past) {
		t.Errorf("the folder db has been changed at %v, %v", fi.ModTime(), err)
	}
}

// A Repair whose context ends while it waits for the lock has changed nothing.
func TestRepairCancelled(t *testing.T) {
	a := nodetest.New(t, ca, "ca.example.com:1234")
	remove(t, a.Path(), "db", "serial")
	before := snapshot(t, a.Path())
	short, cancel := context.WithCancel(ctx)
	cancel()
	if done, err := a.Repair(short); !errors.Is(err, context.Canceled) || len(done) > 0 {
		t.Errorf("done %q, error %v", done, err)
	}
	if snapshot(t, a.Path()) != before {
		t.Error("the directory has changed")
	}
}
