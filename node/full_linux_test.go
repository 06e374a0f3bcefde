package node_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"peerlink/node"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// A link can be ended while the disk with the node's directory is full.
func TestDeactivateOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m,mode=0700"); err != nil {
		t.Skipf("skipped: a node's directory on a full disk (mounting a small tmpfs: %v)", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	key, err := pki.GenerateKey(pki.P256)
	if err != nil {
		t.Fatal(err)
	}
	own := nodetest.NewWithKey(t, filepath.Join(dir, "node"), nodetype.CreditorsAgent, "127.0.0.1:1", key)
	other := nodetest.New(t, nodetype.AccountingAuthority, "127.0.0.1:2")
	nodetest.Peer(t, own, other)
	id := other.Identity().ID
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer ballast.Close()
	for err == nil {
		_, err = ballast.Write(make([]byte, 4096))
	}
	if changed, err := own.DeactivatePeer(t.Context(), id); err != nil || !changed {
		t.Fatalf("%v, %v", changed, err)
	}
	d, err := node.Open(own.Path())
	if err != nil {
		t.Fatal(err)
	}
	if date, err := d.Deactivated(id); err != nil || date == "" {
		t.Errorf("deactivated on %q, %v", date, err)
	}
}
