package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/node/nodetest"
	"peerlink/node/pki"
)

// What a node revokes is bounded, and can not be its root key. A list that is not valid is never published, and
// what is not valid in the list of a peer does not hide what is.
func TestRevokeServerKey(t *testing.T) {
	t.Parallel()
	n, peer := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
	nodetest.Peer(t, n, peer)
	if _, err := n.RevokeServerKey(ctx, pki.Fingerprint(n.Root().PublicKey)); err == nil || !strings.Contains(err.Error(), "root key") {
		t.Errorf("the root key: %v", err)
	}
	key := "sha256:" + strings.Repeat("ab", 32)
	for i, want := range []bool{true, false} {
		if changed, err := n.RevokeServerKey(ctx, key); err != nil || changed != want {
			t.Fatalf("call %d: %v, %v", i, changed, err)
		}
	}
	file := filepath.Join(n.Path(), "nodeinfo", "revoked-keys.txt")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var many strings.Builder
	for i := range 256 {
		fmt.Fprintf(&many, "sha256:%064x\n", i)
	}
	write(many.String())
	if _, err := n.RevokeServerKey(ctx, key); err == nil || !strings.Contains(err.Error(), "can not be more") {
		t.Errorf("one too many: %v", err)
	}
	peer.Sign(t, n.Bundle(t))
	if p, err := peer.Peer(n.Identity().ID); err != nil || len(p.Revoked) != 256 {
		t.Errorf("the peer has %d keys, %v", len(p.Revoked), err)
	}
	for _, text := range []string{"x\n", key + "0\n", strings.ToUpper(key), many.String() + key, "\xff", strings.Repeat("#\n", 40_000)} {
		write(text)
		if err := n.CreateBundle(ctx, filepath.Join(t.TempDir(), "b.zip"), n.Key); err == nil {
			t.Errorf("a bundle with the list %.20q was made", text)
		}
	}

	// The list of a peer, from another program.
	known := filepath.Join(peer.Path(), "peers", n.Identity().ID)
	for text, want := range map[string]int{"what is this\n" + key + "\r\n\nsha256:00\n": 257, "\xff": 256, "": 256} {
		if err := os.WriteFile(filepath.Join(known, "nodeinfo", "revoked-keys.txt"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(known, "revoked-keys.txt"), []byte(strings.TrimPrefix(many.String(), "sha256:")), 0o644); err == nil {
			if p, err := peer.Peer(n.Identity().ID); err != nil || p.RevokedErr == nil {
				t.Errorf("a damaged list of all revoked keys was accepted, %v", err)
			}
		}
		pinned := many.String()
		if want == 257 { // there is room
			pinned = strings.Join(strings.SplitAfter(pinned, "\n")[:255], "")
			want = 256
		}
		if err := os.WriteFile(filepath.Join(known, "revoked-keys.txt"), []byte(pinned), 0o644); err != nil {
			t.Fatal(err)
		}
		p, err := peer.Peer(n.Identity().ID)
		if err != nil || len(p.Revoked) != want {
			t.Errorf("%q: %d keys, %v", text, len(p.Revoked), err)
		}
	}
}
