package link_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// halted makes two peers without services; the second has its queue.
func halted(t *testing.T) (authority, other *linktest.Node, cfg link.Config) {
	t.Helper()
	authority, other = linktest.Pair(t, ca)
	other.Put(authority, linktest.Message(t, other, authority, 0))
	authority.Take(1)
	if err := other.Stop(); err != nil {
		t.Fatal(err)
	}
	cfg = other.Config
	cfg.Dir, cfg.Log = other.Dir, other.Log.Logger()
	return authority, other, cfg
}

// background runs do until end is called, which returns the error of do.
func background(t *testing.T, do func(context.Context) error) (end func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	t.Cleanup(cancel)
	return func() error {
		cancel()
		return result(t, done)
	}
}

func result(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(linktest.Timeout):
		t.Fatal("it does not end")
		return nil
	}
}

// A process that sends from one queue continues each time after its connection was idle,
// and ends without an error when its context is done.
func TestSendRests(t *testing.T) {
	t.Parallel()
	authority, other, cfg := halted(t)
	cfg.IdleTimeout = 10 * time.Millisecond
	var err error
	if cfg.Certificate, err = link.LoadCertificate(other.Dir, other.CertFile, other.KeyFile); err != nil {
		t.Fatal(err)
	}
	end := background(t, func(ctx context.Context) error {
		return link.NewQueueSender(cfg, authority.Identity().ID, linktest.QueueTo(authority)).Run(ctx)
	})
	for n := 1; n <= 3; n++ {
		rests(t, other, n)
		other.Put(authority, linktest.Message(t, other, authority, n))
		authority.Take(1)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	other.WaitDrained(authority, 0)
}

// A process that sends from one queue ends when the peer is deactivated, also while it
// has no connection because it is idle.
func TestSendEndsWithDeactivation(t *testing.T) {
	t.Parallel()
	authority, other, cfg := halted(t)
	cfg.IdleTimeout = 10 * time.Millisecond
	id := authority.Identity().ID
	var err error
	if cfg.Certificate, err = link.LoadCertificate(other.Dir, other.CertFile, other.KeyFile); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- link.NewQueueSender(cfg, id, linktest.QueueTo(authority)).Run(context.Background()) }()
	rests(t, other, 1)
	if _, err := other.DeactivatePeer(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	if err := result(t, done); !errors.Is(err, link.ErrNotActive) {
		t.Errorf("got %v, want ErrNotActive", err)
	}
}

// A process that sends from one queue makes a message that the peer refuses a dead letter, and
// continues to send, as a service does.
func TestSendRefused(t *testing.T) {
	t.Parallel()
	authority, other, cfg := halted(t)
	var err error
	if cfg.Certificate, err = link.LoadCertificate(other.Dir, other.CertFile, other.KeyFile); err != nil {
		t.Fatal(err)
	}
	other.Put(authority, refusedMessage(), linktest.Message(t, other, authority, 2))
	end := background(t, func(ctx context.Context) error {
		return link.NewQueueSender(cfg, authority.Identity().ID, linktest.QueueTo(authority)).Run(ctx)
	})
	if _, ok := authority.Take(1)["number 2"]; !ok {
		t.Error("got another message, want number 2, which was queued after the refused one")
	}
	other.WaitDrained(authority, 1)
	if err := end(); err != nil {
		t.Error(err)
	}
}

// A process that sends from one queue tries small packets, too, and ends with an error if the peer
// answers nothing at all.
func TestSendThroughSmallPackets(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	proxy := swallowLarge(t, authority.Addr)
	authority.WriteStompTOML(proxy)
	nodetest.Peer(t, authority.Node, other.Node)
	authority.Start()
	other.Start() // makes the queue
	other.Put(authority, linktest.Message(t, other, authority, 0))
	authority.Take(1)
	if err := other.Stop(); err != nil {
		t.Fatal(err)
	}
	cfg := other.Config
	cfg.Dir, cfg.Log, cfg.HandshakeTimeout, cfg.RetryMax = other.Dir, other.Log.Logger(), 500*time.Millisecond, time.Millisecond
	var err error
	if cfg.Certificate, err = link.LoadCertificate(other.Dir, other.CertFile, other.KeyFile); err != nil {
		t.Fatal(err)
	}
	other.Put(authority, linktest.Message(t, other, authority, 1))
	send := func(ctx context.Context) error {
		return link.NewQueueSender(cfg, authority.Identity().ID, linktest.QueueTo(authority)).Run(ctx)
	}
	end := background(t, send)
	authority.Take(1)
	if err := end(); err != nil {
		t.Error(err)
	}
	if err := authority.Stop(); err != nil {
		t.Fatal(err)
	}
	other.Put(authority, linktest.Message(t, other, authority, 2))
	if err := send(t.Context()); err == nil {
		t.Error("no error without an answer")
	}
}

// A process that drains one queue needs no certificate, answers all messages, also
// those that arrive later, and ends without an error when its context is done.
func TestDrainOfOneQueue(t *testing.T) {
	t.Parallel()
	authority, other, cfg := halted(t)
	id := authority.Identity().ID
	drain := func(ctx context.Context) error {
		return link.NewQueueDrainer(cfg, id, linktest.QueueTo(authority)).Run(ctx)
	}
	if err := drain(context.Background()); !errors.Is(err, link.ErrNotDeactivated) {
		t.Fatalf("an active peer: got %v, want ErrNotDeactivated", err)
	}
	if _, err := other.DeactivatePeer(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	end := background(t, drain)
	for n := range 2 {
		other.Put(authority, linktest.Message(t, other, authority, n))
		if m := other.TakeEach(1)[0]; m.Type != "RejectedConfig" {
			t.Errorf("answer %+v", m)
		}
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	other.WaitDrained(authority, 0)
}
