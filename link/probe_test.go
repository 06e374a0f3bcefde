package link_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
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
	probes, err := prober(t, authority).Ping(t.Context(), other.Identity().ID)
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
	l, err := net.Listen("tcp", "127.0.0.1:0")
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
				defer conn.Close()
				io.WriteString(conn, text)
				io.Copy(io.Discard, conn)
			}()
		}
	}()
	return l.Addr().String()
}

// What the peer refuses is named at the stage to which it belongs: certificates in TLS, though a
// client learns of that only later, and a missing registration in STOMP.
func TestProbeRefused(t *testing.T) {
	t.Parallel()
	authority, other, _, otherClock := nodesWithClocks(t)
	otherClock.set(-2 * day)
	ping := func() link.Probe {
		probes, err := prober(t, authority).Ping(t.Context(), other.Identity().ID)
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
	if _, err := prober(t, other).Ping(t.Context(), authority.Identity().ID); !errors.Is(err, link.ErrNotActive) {
		t.Errorf("ping of a deactivated peer: %v", err)
	}
	if _, err := prober(t, other).Ping(t.Context(), "abcd9999"); !errors.Is(err, node.ErrUnknownPeer) {
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
	probes, err := prober(t, authority).Ping(t.Context(), other.Identity().ID)
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
				if err != nil {
					return
				}
				time.AfterFunc(100*time.Millisecond, func() { server.Fail(&stomp.ServerError{Message: "Unknown peer serial number."}) })
				if _, err := server.Next(); errors.Is(err, io.EOF) {
					server.Finish() // the client was faster
				}
			}()
		}
	}()
}
