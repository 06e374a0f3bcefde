package link_test

import (
	"context"
	"fmt"
	"testing"

	"peerlink/link"
	"peerlink/link/linktest"
)

// A peer's name appears in the status of a running service, and ends no connection: it is only for
// the node's owner.
func TestPeerNameEndsNoConnection(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	exchange(t, authority, other, 1)
	status := func() link.PeerStatus { return authority.Service.Status().Peers[0] }
	before := status().Connections
	if len(before) == 0 {
		t.Fatal("no connection")
	}
	for _, name := range []string{"Harbour Bank", "Another", ""} {
		if err := authority.SetPeerName(context.Background(), other.Identity().ID, name); err != nil {
			t.Fatal(err)
		}
		linktest.Eventually(t, "the name", func() error {
			if got := status().Name; got != name {
				return fmt.Errorf("the status has the name %q, want %q", got, name)
			}
			return nil
		})
	}
	exchange(t, authority, other, 2)
	if after := status().Connections; len(after) != len(before) || !after[0].Since.Equal(before[0].Since) {
		t.Errorf("connections %+v, before %+v", after, before)
	}
}
