package link_test

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node"
	"peerlink/node/nodetest"
)

// replacePeer replaces a peer of n by another node.
func replacePeer(t *testing.T, n, earlier, next *linktest.Node, keepSubnet bool) *node.ReplaceResult {
	t.Helper()
	r := node.Replacement{Peer: earlier.Identity().ID, Bundle: nodetest.ReadBundle(t, next.Bundle(t)), KeepSubnet: keepSubnet}
	res, err := n.ReplacePeer(t.Context(), r, func() (crypto.Signer, error) { return n.Key, nil })
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// The owner of an accounting authority has lost the root key, and goes on with another one under the same ID. As soon
// as the peer is replaced there is no traffic with whoever has the earlier key, although the certificate that was
// issued for it is still valid; and after the registration all messages that waited arrive at the new node.
func TestReplacedPeer(t *testing.T) {
	t.Parallel()
	earlier, agent := linktest.Pair(t, ca)
	outBecomes(t, agent, earlier, link.VerdictLinked, "")
	inBecomes(t, agent, earlier, link.VerdictLinked, "")

	next := linktest.New(t, aa)
	res := replacePeer(t, agent, earlier, next, false)
	// The peer's link ends because of the other root certificate, or because the peer's directory was
	// not there for a moment.
	linktest.Eventually(t, "the end of all connections", func() error {
		if conns := agent.Service.Status().Peers[0].Connections; len(conns) > 0 {
			return fmt.Errorf("there are %+v", conns)
		}
		return nil
	})
	agent.Put(earlier, linktest.Message(t, agent, earlier, 1)) // to the same ID
	outBecomes(t, earlier, agent, link.VerdictNotRegistered, "no active link")

	next.Sign(t, agent.Bundle(t))
	for from, to := range map[*linktest.Node]*linktest.Node{agent: next, next: agent} {
		register(t, to, from)
	}
	if res.Peer.Root.Equal(earlier.Root()) {
		t.Error("the earlier root certificate is still pinned")
	}
	next.Start()
	outBecomes(t, agent, next, link.VerdictLinked, "")
	outBecomes(t, next, agent, link.VerdictLinked, "")
	next.Take(1)
	agent.WaitDrained(next, 0)
	earlier.Put(agent, linktest.Message(t, earlier, agent, 2))
	waitForLog(t, earlier, otherRoot)
}

// otherRoot is why a connection with a certificate for another root key is refused.
const otherRoot = "not signed by the pinned root key"

// Somebody with a certificate that this node has issued in the name of the peer, but for another root key, is refused,
// and can not make the link look broken once the peer has shown that it has the pinned key: neither while the peer is
// connected nor afterwards. Before that it is shown, until the peer connects.
func TestOtherRootKey(t *testing.T) {
	t.Parallel()
	for name, replace := range map[string]func(t *testing.T, agent, former, peer *linktest.Node){
		"the peer has replaced its key": func(t *testing.T, agent, former, peer *linktest.Node) {
			nodetest.Peer(t, agent.Node, former.Node)
			replacePeer(t, agent, former, peer, false)
		},
		"an impostor was signed by mistake": func(t *testing.T, agent, former, peer *linktest.Node) {
			agent.Sign(t, former.Bundle(t))
			former.Sign(t, agent.Bundle(t))
			register(t, former, agent)
			if _, err := agent.RemovePeer(t.Context(), nodetest.AAID); err != nil {
				t.Fatal(err)
			}
			agent.Sign(t, peer.Bundle(t))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			agent, former, peer := linktest.New(t, ca), linktest.New(t, aa), linktest.New(t, aa)
			replace(t, agent, former, peer)
			peer.Sign(t, agent.Bundle(t))
			register(t, agent, peer)
			register(t, peer, agent)
			agent.Start()

			linktest.Eventually(t, "the refusal", func() error { return refusesBecause(agent, former, otherRoot) })
			remedy(t, inBecomes(t, agent, peer, link.VerdictWrongCertificate, "another root key than the pinned one").In, "in person")
			peer.Start()
			inBecomes(t, agent, peer, link.VerdictLinked, "")

			good := func(when string) {
				t.Helper()
				if err := refusesBecause(agent, former, otherRoot); err != nil {
					t.Fatal(err)
				}
				if in := agent.Service.Status().Peers[0].In; in.Verdict == link.VerdictWrongCertificate {
					t.Errorf("%s: %+v", when, in)
				}
			}
			good("while the peer is connected")
			if err := peer.Stop(); err != nil {
				t.Fatal(err)
			}
			good("while the peer is away")
		})
	}
}

// refusesBecause returns an error unless a node refuses a connection from another one with an answer that
// contains the reason.
func refusesBecause(to, from *linktest.Node, reason string) error {
	conn, err := dialAs(from, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(linktest.Timeout))
	if answer, err := io.ReadAll(conn); !bytes.Contains(answer, []byte(reason)) {
		return fmt.Errorf("the answer is %q, %v", answer, err)
	}
	return nil
}

// The owner of an agent has lost the root key, and its new node gets the subnet, and so the accounts. What waits for
// the earlier node is not answered in its name, not even when the service is started again before the new node is
// registered: it goes to the new node, with what the applications send meanwhile, on both brokers.
func TestReplacedAgentKeepsSubnet(t *testing.T) {
	t.Parallel()
	for name, on := range bothBrokers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			authority, earlier, messages := waiting(t, aa, ca, on)
			next := linktest.New(t, ca)
			replacePeer(t, authority, earlier, next, true)
			waitForLog(t, authority, "peer has been deactivated")
			if err := authority.Stop(); err != nil {
				t.Fatal(err)
			}
			authority.Start()
			authority.Put(earlier, linktest.Message(t, authority, earlier, 1)) // routed by its subnet
			cfg := authority.Config
			cfg.Dir, cfg.Log = authority.Dir, authority.Log.Logger()
			drainer := link.NewQueueDrainer(cfg, earlier.Identity().ID, linktest.QueueTo(earlier))
			if err := drainer.Run(t.Context()); !errors.Is(err, link.ErrNotDeactivated) {
				t.Errorf("a drainer ends with %v", err)
			}

			next.Sign(t, authority.Bundle(t))
			for from, to := range map[*linktest.Node]*linktest.Node{authority: next, next: authority} {
				register(t, to, from)
			}
			next.Start()
			next.TakeEach(len(messages) + 1) // the invalid message is set aside
			authority.WaitDrained(earlier, 1)
			authority.Put(next, linktest.Message(t, authority, next, 2))
			next.Take(1)
			if log := authority.Log.String(); strings.Contains(log, "answered=") {
				t.Errorf("messages were answered:\n%s", log)
			}
		})
	}
}

// A peer that is removed before it was registered is forgotten by the running service: there was no link with it
// that could be missed.
func TestRemovedPeer(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	authority.Sign(t, other.Bundle(t))
	authority.Start()
	peers := func(want int) {
		t.Helper()
		linktest.Eventually(t, fmt.Sprint(want, " peers"), func() error {
			if list := authority.Service.Status().Peers; len(list) != want {
				return fmt.Errorf("there are %+v", list)
			}
			return nil
		})
	}
	peers(1)
	linktest.Eventually(t, "the peer's files", func() error {
		// A peer that is gone before its files were ever read may have been one with a link.
		if p := authority.Service.Status().Peers[0]; p.State != "signed" {
			return fmt.Errorf("the state is %s", p.State)
		}
		return nil
	})
	if _, err := authority.RemovePeer(t.Context(), other.Identity().ID); err != nil {
		t.Fatal(err)
	}
	peers(0)
	// The same node can be signed again, and linked.
	nodetest.Peer(t, authority.Node, other.Node)
	other.Start()
	outBecomes(t, authority, other, link.VerdictLinked, "")
	outBecomes(t, other, authority, link.VerdictLinked, "")
}
