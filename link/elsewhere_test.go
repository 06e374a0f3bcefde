package link_test

import (
	"context"
	"net"
	"testing"

	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// A service that only receives does not pretend to know how sending is, which another process does.
func TestVerdictElsewhere(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	if err := authority.MarkActive(other.Identity().ID); err != nil {
		t.Fatal(err)
	}
	cert, err := link.LoadCertificate(authority.Dir, authority.CertFile, authority.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", authority.Addr)
	if err != nil {
		t.Fatal(err)
	}
	cfg := authority.Config
	cfg.Dir, cfg.Certificate = authority.Dir, cert
	authority.Service = link.NewReceiveOnly(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- authority.Service.Run(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	outBecomes(t, authority, other, link.VerdictElsewhere, "only receives")
	inBecomes(t, authority, other, link.VerdictConnecting, "has not connected")
	other.Start()
	inBecomes(t, authority, other, link.VerdictLinked, "")
}
