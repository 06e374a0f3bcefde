package link_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"peerlink/internal/outproxy"
	"peerlink/internal/outproxy/proxytest"
	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// behindProxy is a node whose name nobody but the proxy can resolve.
const behindProxy = "peer.invalid:1234"

// proxyTo starts a proxy, and returns it with the configuration for it.
func proxyTo(t *testing.T, scheme string, s *proxytest.Server) *outproxy.Proxy {
	t.Helper()
	if err := s.Start(scheme); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	p, err := outproxy.Parse(scheme + "://me:hidden@" + s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// onlyPeer returns the status of the only peer of a node, or the zero value before its service knows
// the peer.
func onlyPeer(n *linktest.Node) link.PeerStatus {
	for _, p := range n.Service.Status().Peers {
		return p
	}
	return link.PeerStatus{}
}

// A service with a proxy reaches its peers through it, by names that only the proxy can resolve, and
// in no other way. If the proxy makes no connection, the state of the link says which proxy, and what
// it has answered, and no log contains its password.
func TestProxy(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"socks5", "http"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			authority, other := linktest.New(t, aa), linktest.New(t, ca)
			authority.WriteStompTOML(behindProxy)
			nodetest.Peer(t, authority.Node, other.Node)
			authority.Start()
			denying := &proxytest.Server{User: "me", Password: "hidden", Deny: true}
			other.Config.Proxy = proxyTo(t, scheme, denying)
			other.Start()
			said := map[string]string{"socks5": "not allowed", "http": "403 Forbidden"}[scheme]
			linktest.Eventually(t, "the answer of the proxy", func() error {
				out := onlyPeer(other).Out
				if out.Verdict != link.VerdictUnreachable || !strings.Contains(out.Reason, said) || !strings.Contains(out.Reason, scheme+"://"+denying.Addr()) {
					return fmt.Errorf("the state is %+v", out)
				}
				return nil
			})
			if err := other.Stop(); err != nil {
				t.Fatal(err)
			}

			s := &proxytest.Server{User: "me", Password: "hidden", Hosts: map[string]string{behindProxy: authority.Addr}}
			other.Config.Proxy = proxyTo(t, scheme, s)
			other.Start()
			other.Put(authority, linktest.Message(t, other, authority, 1))
			if got := authority.Take(1); got["number 1"].Type == "" {
				t.Errorf("got %v", got)
			}
			if got := s.Requests(); len(got) != 1 || got[0] != behindProxy {
				t.Errorf("the proxy was asked for %q", got)
			}
			if strings.Contains(other.Log.String(), "hidden") {
				t.Errorf("the log contains the password:\n%s", other.Log)
			}
		})
	}
}

// A proxy that never answers holds an attempt no longer than the time for TCP connections.
func TestSilentProxy(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) // connections are never accepted
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	if other.Config.Proxy, err = outproxy.Parse("http://" + l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	other.Config.ConnectTimeout = 100 * time.Millisecond
	other.Start()
	linktest.Eventually(t, "several attempts", func() error {
		if st := onlyPeer(other); st.Counts.Failures < 3 || !strings.Contains(st.Out.Reason, "does not answer in time") {
			return fmt.Errorf("%+v", st.Out)
		}
		return nil
	})
}

// A probe through a proxy has no stage for the name, names the proxy, and says what to do if the
// proxy makes no connection.
func TestProbeThroughProxy(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	other.WriteStompTOML(behindProxy)
	nodetest.Peer(t, authority.Node, other.Node)
	other.Start()
	cert, err := link.LoadCertificate(authority.Dir, authority.CertFile, authority.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	probe := func(s *proxytest.Server) link.Probe {
		t.Helper()
		pr := link.NewProber(link.Config{Dir: authority.Dir, Certificate: cert, Proxy: proxyTo(t, "http", s)})
		probes, err := pr.Ping(t.Context(), other.Identity().ID)
		if err != nil || len(probes) != 1 {
			t.Fatal(probes, err)
		}
		if want := "http://" + s.Addr(); probes[0].Proxy != want {
			t.Errorf("the proxy is %q, want %q", probes[0].Proxy, want)
		}
		return probes[0]
	}
	p := probe(&proxytest.Server{Hosts: map[string]string{behindProxy: other.Addr}})
	if stages(p) != "tcp tls connect receipt" || !p.OK || p.Address != "" || !strings.Contains(p.Stages[0].Detail, "through the proxy http://") {
		t.Errorf("%+v", p)
	}
	p = probe(&proxytest.Server{Deny: true})
	if stages(p) != "tcp!" || p.OK || p.Failure.Verdict != link.VerdictUnreachable || !strings.Contains(p.Failure.Reason, "it answers 403 Forbidden") ||
		!strings.Contains(p.Failure.Remedy, "permits connections to "+behindProxy) {
		t.Errorf("%+v, %+v", p, p.Failure)
	}
}
