package link_test

import (
	"errors"
	"strings"
	"testing"

	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// A service that cannot poll its files any more, for example because a file system
// does not respond, reports that, while messages keep flowing; and reports the end of
// it.
func TestStall(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	stall, resume := other.StallPolls(t)
	authority.Start()
	other.Start()
	exchange(t, authority, other, 1)
	if err := other.Service.Stalled(); err != nil {
		t.Error(err)
	}
	stall()
	linktest.Eventually(t, "the stall", func() error {
		if other.Service.Stalled() == nil {
			return errors.New("it has not been noticed")
		}
		return nil
	})
	exchange(t, authority, other, 2)
	resume()
	linktest.Eventually(t, "the end of the stall", other.Service.Stalled)
	exchange(t, authority, other, 3)
}

// A service that is requested to check everything again repairs changes that it does not
// detect by itself, such as queues that were deleted from the broker, and no link ends
// because of that.
func TestRecheck(t *testing.T) {
	t.Parallel()
	recheck := make(chan struct{})
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	other.Config.Recheck = recheck
	authority.Start()
	other.Start()
	exchange(t, authority, other, 1)
	before := other.Service.Status().Peers[0].Connections

	p, err := other.Peer(authority.Identity().ID)
	if err != nil {
		t.Fatal(err)
	}
	view, err := link.View(other.Dir, p)
	if err != nil {
		t.Fatal(err)
	}
	q, err := link.BindingOf(other.Dir, p, view, link.DefaultQueuePattern)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Store.Unbind(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	recheck <- struct{}{}
	other.Put(authority, linktest.Message(t, other, authority, 2)) // as soon as there is a queue
	authority.Take(1)
	after := other.Service.Status().Peers[0].Connections
	if len(before) == 0 || len(after) == 0 || !before[0].Since.Equal(after[0].Since) {
		t.Errorf("connections %v, before %v", after, before)
	}
	if !strings.Contains(other.Log.String(), "looking at everything again") {
		t.Error("the log does not mention the check")
	}
	if strings.Contains(other.Log.String(), "new server certificate") {
		t.Error("the log reports a new server certificate, although the certificate has not changed")
	}
}
