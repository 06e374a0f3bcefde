package node_test

import (
	"os"
	"path/filepath"
	"testing"

	"peerlink/node/nodetest"
	"peerlink/node/pki"
)

// The path of a node is not a pattern: a node in a folder named "n[ab]" does not change the node in
// "na" beside it, and finds its own files.
func TestPathIsNoPattern(t *testing.T) {
	base := t.TempDir()
	key, err := pki.GenerateKey(pki.P256)
	if err != nil {
		t.Fatal(err)
	}
	a := nodetest.NewWithKey(t, filepath.Join(base, "n[ab]"), aa, "aa.example.com:1234", key)
	other := filepath.Join(base, "na", "peers", ".new-1")
	own := filepath.Join(a.Path(), "peers", ".new-1")
	for _, dir := range []string{other, own} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := nodetest.New(t, ca, "ca.example.com:1234")
	nodetest.Peer(t, a, c) // signing removes temporary files
	if _, err := os.Stat(other); err != nil {
		t.Errorf("another node's folder: %v", err)
	}
	if _, err := os.Stat(own); err == nil {
		t.Error("the temporary files of an interrupted command were not removed")
	}

	a.ServerCert(t)
	want := read(t, a.Path(), "db", "index")
	remove(t, a.Path(), "db", "index")
	if _, err := a.Repair(ctx); err != nil {
		t.Fatal(err)
	}
	if got := read(t, a.Path(), "db", "index"); !sameLines(got, want) {
		t.Errorf("the index is\n%s\nwant\n%s", got, want)
	}
}
