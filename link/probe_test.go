package link_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node"
	"peerlink/node/nodetest"
	"peerlink/stomp"
)

func prober(t *testing.T, n *linktest.Node) *link.Prober {
	t.Helper()
	cert, err := link.LoadCertificate(n.Dir, n.CertFile, n.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	return link.NewProber(link.Config{
		Dir: n.Dir, Certificate: cert, Now: n.Config.Now,
		HandshakeTimeout: time.Second, ConnectTimeout: time.Second,
	})
}

// stages returns the stages of a probe, with ! after the one that failed.
func stages(p link.Probe) string {
	var list []string
	for _, s := range p.Stages {
		name := s.Name
		if !s.OK {
			name += "!"
		}
		list = append(list, name)
	}
	return strings.Join(list, " ")
}

// A probe goes through all stages of a connection, sends no message, and needs no running service
// on its side.
func TestProbe(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	other.Start()
	probes, _, err := prober(t, authority).Ping(t.Context(), other.Identity().ID, nil)
	if err != nil || len(probes) != 1 {
		t.Fatal(probes, err)
	}
	p := probes[0]
	if stages(p) != "tcp tls connect receipt" || !p.OK || p.Failed() != nil || p.Failure != nil || p.Address != other.Addr {
		t.Errorf("%+v", p)
	}
	for _, s := range p.Stages {
		if s.Seconds <= 0 || s.Seconds > 60 {
			t.Errorf("%s took %v s", s.Name, s.Seconds)
		}
	}
	if got := statusOf(t, other, authority).Counts.Received; got != 0 {
		t.Errorf("the peer has received %d messages", got)
	}
}

// A probe fails at the stage at which the path is broken, and says why.
func TestProbeStages(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	pr := prober(t, authority)
	peer, err := pr.Peer(other.Identity().ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		server  string
		stages  string
		verdict link.Verdict
		reason  string
	}{
		{"no such name", "no-such-host.invalid:1234", "dns!", link.VerdictUnreachable, "no-such-host.invalid"},
		{"not an address", "1234", "dns!", link.VerdictUnreachable, "missing port"},
		{"nothing listens", other.Addr, "tcp!", link.VerdictUnreachable, "TCP connection refused by " + other.Addr},
		{"no TLS", answering(t, "SSH-2.0-OpenSSH_9.9\r\n"), "tcp tls!", link.VerdictUnreachable, "another program"},
		{"silent", answering(t, ""), "tcp tls!", link.VerdictUnreachable, "no TLS handshake"},
	} {
		p := pr.Probe(t.Context(), peer, c.server, "tcp")
		failed := p.Failed()
		if stages(p) != c.stages || p.OK || failed == nil || failed.Err == nil || failed.Detail == "" {
			t.Errorf("%s: %+v", c.name, p)
			continue
		}
		if p.Failure.Verdict != c.verdict || !strings.Contains(p.Failure.Reason, c.reason) || p.Failure.Remedy == "" || strings.Contains(p.Failure.Remedy, "peerlink ping") {
			t.Errorf("%s: %+v, expected %s with %q", c.name, p.Failure, c.verdict, c.reason)
		}
	}
}

// answering returns the address of a server that writes the text to each client, and reads until
// the client ends.
func answering(t *testing.T, text string) string {
	t.Helper()
	return serveEach(t, "127.0.0.1:0", func(conn net.Conn) {
		io.WriteString(conn, text)
		io.Copy(io.Discard, conn)
	})
}

// What the peer refuses is named at the stage to which it belongs: certificates in TLS, though a
// client learns of that only later, and a missing registration in STOMP.
func TestProbeRefused(t *testing.T) {
	t.Parallel()
	authority, other, _, otherClock := nodesWithClocks(t)
	otherClock.set(-2 * day)
	ping := func() link.Probe {
		probes, _, err := prober(t, authority).Ping(t.Context(), other.Identity().ID, nil)
		if err != nil || len(probes) != 1 {
			t.Fatal(probes, err)
		}
		return probes[0]
	}
	if p := ping(); stages(p) != "tcp tls!" || p.Failure.Verdict != link.VerdictWrongCertificate {
		t.Errorf("%+v, %+v", p, p.Failure)
	}
	otherClock.set(30 * day)
	if _, err := other.DeactivatePeer(t.Context(), authority.Identity().ID); err != nil {
		t.Fatal(err)
	}
	outBecomes(t, other, authority, link.VerdictDeactivated, "")
	if p := ping(); stages(p) != "tcp tls connect!" || p.Failure.Verdict != link.VerdictNotRegistered {
		t.Errorf("%+v, %+v", p, p.Failure)
	}
	if _, _, err := prober(t, other).Ping(t.Context(), authority.Identity().ID, nil); !errors.Is(err, link.ErrNotActive) {
		t.Errorf("ping of a deactivated peer: %v", err)
	}
	if _, _, err := prober(t, other).Ping(t.Context(), "abcd9999", nil); !errors.Is(err, node.ErrUnknownPeer) {
		t.Errorf("ping of an unknown peer: %v", err)
	}
}

// A server of the reference implementation accepts every session, and refuses it a moment later. A
// probe does not take that for success, nor does a check of a resting link.
func TestRefusedAfterConnected(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	other.Start()
	authority.Config.IdleTimeout, authority.Config.CheckInterval = 10*time.Millisecond, 50*time.Millisecond
	authority.Start()
	outBecomes(t, authority, other, link.VerdictResting, "")
	if err := other.Stop(); err != nil {
		t.Fatal(err)
	}
	refuseLate(t, other)
	probes, _, err := prober(t, authority).Ping(t.Context(), other.Identity().ID, nil)
	if err != nil || len(probes) != 1 {
		t.Fatal(probes, err)
	}
	if p := probes[0]; stages(p) != "tcp tls connect!" || p.Failure.Verdict != link.VerdictNotRegistered {
		t.Errorf("%+v, %+v", p, p.Failure)
	}
	outBecomes(t, authority, other, link.VerdictNotRegistered, "most likely")
}

// refuseLate serves at the node's address as the reference does for peers that are not registered.
func refuseLate(t *testing.T, n *linktest.Node) {
	t.Helper()
	serveSessions(t, n, func(server *stomp.Server) {
		time.AfterFunc(100*time.Millisecond, func() { server.Fail(&stomp.ServerError{Message: "Unknown peer serial number."}) })
		if _, err := server.Next(); errors.Is(err, io.EOF) {
			server.Finish() // the client was faster
		}
	})
}

// serveSessions opens STOMP sessions at the node's address, in the place of its service.
func serveSessions(t *testing.T, n *linktest.Node, serve func(*stomp.Server)) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(n.CertFile, n.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", n.Addr, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				server, err := stomp.NewServer(context.Background(), conn, stomp.ServerConfig{Destination: n.Identity().Type.Destination()})
				if err == nil {
					serve(server)
				}
			}()
		}
	}()
}

// A peer with very many servers that do not answer does not make a ping long: some servers are probed
// at once, the others are counted, and each result is passed on when it is there.
func TestPingManyServers(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	connected := make(chan struct{}, 100)
	release := make(chan struct{})
	var addresses []string
	for range link.MaxProbed {
		addresses = append(addresses, listening(t, connected, release))
	}
	servers := append(addresses, addresses[0]) // a repeated one is probed once
	for i := range 70 {
		servers = append(servers, fmt.Sprintf("127.0.0.1:%d", i+1))
	}
	path := filepath.Join(authority.Path(), "peers", other.Identity().ID, "nodeinfo", "stomp.toml")
	if err := os.WriteFile(path, node.EncodeStompTOML(other.Identity().Type, servers), 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(release)
		<-connected
		<-connected // while the first waits
	}()
	var got []string
	probes, leftOut, err := prober(t, authority).Ping(t.Context(), other.Identity().ID, func(p link.Probe) { got = append(got, p.Server) })
	if err != nil || leftOut != 70 || len(probes) != link.MaxProbed {
		t.Fatalf("%d probes, %d left out, %v", len(probes), leftOut, err)
	}
	for i, p := range probes {
		if p.Server != addresses[i] || stages(p) != "tcp tls!" {
			t.Errorf("probe %d: %+v, expected one of %s that fails in TLS", i, p, addresses[i])
		}
	}
	slices.Sort(got)
	slices.Sort(addresses)
	if !slices.Equal(got, addresses) {
		t.Errorf("results of %q were passed on, expected those of %q", got, addresses)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := prober(t, authority).Ping(ctx, other.Identity().ID, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: %v", err)
	}
}

// listening returns the address of a server that sends on connected for each connection, and closes it
// after release.
func listening(t *testing.T, connected chan<- struct{}, release <-chan struct{}) string {
	t.Helper()
	return serveEach(t, "127.0.0.1:0", func(net.Conn) {
		connected <- struct{}{}
		<-release
	})
}

// A server that opens a session and never confirms its end fails at the receipt; the reason says what
// was waited for, and how long.
func TestProbeWithoutReceipt(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	serveSessions(t, other, func(server *stomp.Server) {
		server.Next() // DISCONNECT
		<-server.Broken()
	})
	cert, err := link.LoadCertificate(authority.Dir, authority.CertFile, authority.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	pr := link.NewProber(link.Config{Dir: authority.Dir, Certificate: cert, Now: authority.Config.Now, DrainTimeout: 100 * time.Millisecond})
	probes, _, err := pr.Ping(t.Context(), other.Identity().ID, nil)
	if err != nil || len(probes) != 1 {
		t.Fatal(probes, err)
	}
	p := probes[0]
	if stages(p) != "tcp tls connect receipt!" || !strings.Contains(p.Failure.Reason, "has not sent the RECEIPT of DISCONNECT in 100ms") {
		t.Errorf("%+v, %+v", p, p.Failure)
	}
}
