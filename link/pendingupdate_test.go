package link

import (
	"crypto/x509"
	"maps"
	"testing"

	"peerlink/node"
)

// The server keys that a peer has revoked in an info-bundle that was fetched are refused in addition
// to those in the directory, which is read-only: also if the peer's stomp.toml is not replaced. They
// are not those of another root key.
func TestPendingUpdateRevokes(t *testing.T) {
	set := func(keys ...string) node.RevokedKeys {
		all := make(node.RevokedKeys)
		for _, key := range keys {
			all[key] = struct{}{}
		}
		return all
	}
	root, other := &x509.Certificate{Raw: []byte("root")}, &x509.Certificate{Raw: []byte("other")}
	u := &pendingUpdate{root: root, date: "2026-02-01", listed: set("listed"), revoked: set("listed", "known")}
	for _, tt := range []struct {
		peer node.Peer
		want node.RevokedKeys
	}{
		{node.Peer{Root: root, Revoked: set("earlier")}, set("earlier", "listed", "known")},
		{node.Peer{Root: root, NoFollow: true}, set("listed", "known")},
		{node.Peer{Root: root, UpdatedAt: "2026-03-01"}, set("listed", "known")},
		{node.Peer{Root: other, Revoked: set("earlier")}, set("earlier")},
	} {
		p := tt.peer
		if u.apply(&p); !maps.Equal(p.Revoked, tt.want) {
			t.Errorf("with the keys %v, updated at %q: %v are revoked, want %v", tt.peer.Revoked, tt.peer.UpdatedAt, p.Revoked, tt.want)
		}
	}
}
