package link_test

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"peerlink/broker"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// healthIs waits until the service's health is an error with the text, or is good if the
// text is empty.
func healthIs(t *testing.T, n *linktest.Node, text string) {
	t.Helper()
	linktest.Eventually(t, fmt.Sprintf("the health %q", text), func() error {
		err := n.Service.Health()
		if text == "" && err != nil || text != "" && (err == nil || !strings.Contains(err.Error(), text)) {
			return fmt.Errorf("health is %v", err)
		}
		return nil
	})
}

// While the directory of another node is at the path of this node's directory, its content
// is not applied: the peers of the other node get none of this node's messages, and its
// data about common peers causes no loss of messages.
func TestDirectoryOfAnotherNode(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	another := nodetest.New(t, aa, "aa.example.com:1234")
	id := other.Identity().ID
	if err := os.CopyFS(filepath.Join(another.Path(), "peers"), os.DirFS(filepath.Join(authority.Path(), "peers"))); err != nil {
		t.Fatal(err)
	}
	if _, err := another.DeactivatePeer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	authority.Start()
	healthIs(t, authority, "")
	authority.Put(other, numbered(t, authority, other, 1, 5)...) // the peer is away
	own, away := authority.Path(), filepath.Join(t.TempDir(), "away")
	for _, other := range []struct{ path, health string }{
		{another.Path(), "holds another node now"},
		{t.TempDir(), "not a node's directory"},
	} {
		for _, move := range [][2]string{{own, away}, {other.path, own}} {
			if err := os.Rename(move[0], move[1]); err != nil {
				t.Fatal(err)
			}
		}
		healthIs(t, authority, other.health)
		for _, p := range authority.Service.Status().Peers {
			if p.ID != id || p.State != "active" {
				t.Errorf("peer %s is %s", p.ID, p.State)
			}
		}
		for _, move := range [][2]string{{own, other.path}, {away, own}} {
			if err := os.Rename(move[0], move[1]); err != nil {
				t.Fatal(err)
			}
		}
		healthIs(t, authority, "")
	}
	other.Start()
	other.Take(5)
}

// refusingBroker refuses to bind queues while bind is set, to consume them while consume is
// set, and to check whether they are in use while inUse is set.
type refusingBroker struct {
	broker.Broker
	bind, consume, inUse atomic.Bool
}

func (b *refusingBroker) CheckInUse(ctx context.Context, queue string) error {
	if b.inUse.Load() {
		return errors.New("check: access refused")
	}
	return b.Broker.CheckInUse(ctx, queue)
}

func (b *refusingBroker) Bind(ctx context.Context, q broker.PeerBinding) error {
	if b.bind.Load() {
		return errors.New("bind: access refused")
	}
	return b.Broker.Bind(ctx, q)
}

func (b *refusingBroker) Consume(ctx context.Context, queue string) (broker.Consumer, error) {
	if b.consume.Load() {
		return nil, errors.New("consume: access refused")
	}
	return b.Broker.Consume(ctx, queue)
}

// nodesWithRefusingBroker returns two nodes that are peers and not started. The first has a
// refusingBroker.
func nodesWithRefusingBroker(t *testing.T) (authority, other *linktest.Node, refusing *refusingBroker) {
	t.Helper()
	authority, other = linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	refusing = &refusingBroker{Broker: authority.Config.Broker}
	authority.Config.Broker = refusing
	return authority, other, refusing
}

// A service is not healthy while the queues of one of its peers cannot be bound or
// consumed, and is healthy again as soon as they can.
func TestHealthOfQueues(t *testing.T) {
	t.Parallel()
	authority, other, refusing := nodesWithRefusingBroker(t)
	refusing.bind.Store(true)
	other.Start()
	authority.Start()
	healthIs(t, authority, "bind: access refused")
	refusing.consume.Store(true)
	refusing.bind.Store(false)
	healthIs(t, authority, "consume: access refused")
	refusing.consume.Store(false)
	healthIs(t, authority, "")
	authority.Put(other, numbered(t, authority, other, 1, 3)...)
	other.Take(3)
	healthIs(t, authority, "")
}

// A failure of the broker that ends a connection is over when the next connection has opened the
// queue, also if that connection does not end.
func TestHealthAfterBrokerFailure(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	failing := &failingBroker{Broker: authority.Config.Broker, fail: make(chan struct{})}
	authority.Config.Broker = failing
	other.Start()
	authority.Start()
	authority.Put(other, linktest.Message(t, authority, other, 1))
	other.Take(1)
	failing.fail <- struct{}{} // the consumer of the open connection fails
	says(t, authority, "the broker can not be used", 1)
	authority.Put(other, linktest.Message(t, authority, other, 2))
	other.Take(1)
	time.Sleep(12 * authority.Config.PollInterval) // after 10 intervals, a problem that has not ended counts
	if err := authority.Service.Health(); err != nil {
		t.Errorf("the problem is not over: %v", err)
	}
}

// A failure of the broker is over as soon as the queue can be used again, also while a peer whose
// servers do not answer keeps the next connection waiting.
func TestHealthWhileConnecting(t *testing.T) {
	t.Parallel()
	authority, other, refusing := nodesWithRefusingBroker(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	other.WriteStompTOML(silent.Addr().String())
	if _, err := authority.SignPeer(t.Context(), nodetest.ReadBundle(t, other.Bundle(t)), func() (crypto.Signer, error) { return authority.Key, nil }); err != nil {
		t.Fatal(err)
	}
	authority.Config.HandshakeTimeout = time.Hour
	refusing.inUse.Store(true)
	authority.Start()
	healthIs(t, authority, "check: access refused")
	refusing.inUse.Store(false)
	healthIs(t, authority, "")
}

// failingBroker is a broker whose consumers fail when they receive from fail.
type failingBroker struct {
	broker.Broker
	fail chan struct{}
}

func (b *failingBroker) Consume(ctx context.Context, queue string) (broker.Consumer, error) {
	c, err := b.Broker.Consume(ctx, queue)
	return &failingConsumer{c, b.fail}, err
}

type failingConsumer struct {
	broker.Consumer
	fail chan struct{}
}

func (c *failingConsumer) Next(ctx context.Context, limit int) ([]broker.Delivery, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-c.fail:
			cancel(errConsumerFailed)
		case <-ended:
		}
	}()
	list, err := c.Consumer.Next(ctx, limit)
	if errors.Is(context.Cause(ctx), errConsumerFailed) {
		return nil, errConsumerFailed
	}
	return list, err
}

var errConsumerFailed = errors.New("consumer has failed")

// A peer whose directory cannot be read when the service starts is reported, whatever type
// of node this is.
func TestUnreadablePeerAtStart(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	folder := filepath.Join(authority.Path(), "peers", other.Identity().ID)
	// As for a user without access, and also if the tests run as root.
	for _, name := range []string{"root-ca.crt", "peercert.crt", "sub-ca.crt", "subnet.txt", "queues.txt", "ACTIVE", "nodeinfo"} {
		path := filepath.Join(folder, name)
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, path); err != nil {
			t.Skip(err)
		}
	}
	authority.Start()
	linktest.Eventually(t, "the report", func() error {
		if text := authority.Log.String(); !strings.Contains(text, "peer can not be brought up to date") || !strings.Contains(text, other.Identity().ID) {
			return errors.New(text)
		}
		return nil
	})
}

// A problem with the node's directory that ends between two polls, of which one was requested, is
// over.
func TestHealthAfterRecheck(t *testing.T) {
	t.Parallel()
	authority := linktest.New(t, aa)
	recheck := make(chan struct{})
	authority.Config.Recheck = recheck
	authority.Config.PollInterval = 300 * time.Millisecond // so that the request comes before a poll
	authority.Start()
	healthIs(t, authority, "")
	nodeID, away := filepath.Join(authority.Path(), "db", "nodeid"), filepath.Join(t.TempDir(), "nodeid")
	if err := os.Rename(nodeID, away); err != nil {
		t.Fatal(err)
	}
	healthIs(t, authority, "db/nodeid")
	if err := os.Rename(away, nodeID); err != nil {
		t.Fatal(err)
	}
	recheck <- struct{}{}
	healthIs(t, authority, "")
}

// A service becomes healthy again when its broker is available again, even if a peer refuses
// every connection.
func TestHealthBesideRefusingPeer(t *testing.T) {
	t.Parallel()
	authority, other, refusing := nodesWithRefusingBroker(t)
	refusing.inUse.Store(true)
	if _, err := other.DeactivatePeer(t.Context(), authority.Identity().ID); err != nil {
		t.Fatal(err)
	}
	other.Start()
	authority.Start()
	healthIs(t, authority, "check: access refused")
	refusing.inUse.Store(false)
	healthIs(t, authority, "")
}
