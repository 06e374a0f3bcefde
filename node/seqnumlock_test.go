package node_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/gofrs/flock"

	"peerlink/node/nodetest"
)

// A lock on SEQNUM that another user holds, who can read the file, does not prevent signing.
func TestSEQNUMLockOfOthers(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("skipped: Windows has no flock(1)")
	}
	n, peer := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, da, "da.example.com:1234")
	other := flock.New(filepath.Join(n.Path(), "db", "subnets", "debtors", "SEQNUM"), flock.SetFlag(os.O_RDONLY))
	if ok, err := other.TryLock(); err != nil || !ok {
		t.Fatal(ok, err)
	}
	defer other.Close()
	n.Sign(t, peer.Bundle(t))
}
