package link_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// Sending to a peer that was unreachable for long resumes as soon as the peer connects,
// however long the pauses between attempts have become.
func TestPeerCalls(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	// Full jitter makes pauses up to twice as long, and some very short.
	other.Config.RetryMin, other.Config.RetryMax = 24*time.Hour, 24*time.Hour
	other.Start()
	linktest.Eventually(t, "the first attempt", func() error {
		if text := other.Log.String(); !strings.Contains(text, "no connection to the peer") {
			return fmt.Errorf("log:\n%s", text)
		}
		return nil
	})
	other.Put(authority, linktest.Message(t, other, authority, 1))
	authority.Start()
	authority.Take(1)
}
