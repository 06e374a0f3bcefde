package doctor

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/admin"
	"peerlink/internal/outproxy"
	"peerlink/internal/outproxy/proxytest"
	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node/nodetype"
)

// An accounting authority that was made anew, with the same ID and another root key, is not accepted.
func TestMadeAnew(t *testing.T) {
	t.Parallel()
	old := linktest.New(t, nodetype.AccountingAuthority)
	f := newFixtureOf(t, linktest.New(t, nodetype.CreditorsAgent), old)
	again := linktest.New(t, nodetype.AccountingAuthority)
	again.Addr = old.Addr
	again.Start()
	checkFirst(f, fault{want: "chain", detail: "not issued by a trusted certificate", remedy: "another root key"})
}

// If all is well, all checks pass, with and without a running service, and nothing is changed or sent.
func TestHealthy(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.peer.Start()
	for _, running := range []bool{false, true} {
		if running {
			f.node.Start()
			linked := link.LinkState{Verdict: link.VerdictLinked}
			l := &admin.Links{Ready: true}
			l.Listen, l.Peers = f.node.Addr, []link.PeerStatus{{ID: f.peerID(), In: linked, Out: linked}}
			f.cfg.Service, f.cfg.Listen = l, ":1"
		}
		before := tree(t, f.node.Path())
		r, err := Run(t.Context(), f.cfg)
		if err != nil {
			t.Fatal(err)
		}
		if !r.OK || r.First() != nil || r.Count(Skipped) > 0 || r.Count(Passed) != len(r.Checks) {
			t.Errorf("running %v: %+v", running, r.Checks)
		}
		if after := tree(t, f.node.Path()); after != before {
			t.Errorf("the directory has changed from\n%s to\n%s", before, after)
		}
		names := make(map[string]bool)
		for _, c := range r.Checks {
			names[c.Name] = true
			checkDocumented(t, c.Name)
		}
		for _, want := range append([]string{"clock", "directory", "permissions", "certificate", "service", "listen", "announced", "state", "disk", "broker", "files", "peering", "own-chain", "destination", "objects", "quota", "messages"}, networkChecks...) {
			if !names[want] {
				t.Errorf("running %v: no check %s", running, want)
			}
		}
	}
	st := f.peer.Service.Status()
	if got := st.Peers[0].Counts.Received; got != 0 {
		t.Errorf("the peer has received %d messages", got)
	}
}

// A server that can be reached by IPv4 and not by IPv6 is no failure.
func TestOneFamily(t *testing.T) {
	t.Parallel()
	ips, err := lookUp(t.Context(), "localhost")
	if err != nil || len(families(ips)) < 2 {
		t.Skip("skipped: localhost has no address of both families")
	}
	f := newFixture(t)
	f.peer.Start()
	_, port, err := net.SplitHostPort(f.peer.Addr)
	f.must(err)
	f.peerServers("localhost:" + port)
	checkFirst(f, fault{want: "tcp", detail: "localhost:" + port + " IPv6: ", remedy: "nswer", warning: true})
}

// A check that needs one that has failed is skipped.
func TestSkipped(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.must(os.Remove(f.node.CertFile))
	f.peerServers("no-such-host.invalid:1234", f.peer.Addr)
	f.peer.Start()
	r, err := Run(t.Context(), f.cfg)
	f.must(err)
	states := make(map[string]State)
	for _, c := range r.Checks {
		states[c.Name+" "+c.Subject] = c.State
	}
	for key, want := range map[string]State{
		"own-chain ":                           Skipped, // needs the certificate
		"dns no-such-host.invalid:1234":        Failed,
		"tcp no-such-host.invalid:1234":        Skipped,
		"heart-beat no-such-host.invalid:1234": Skipped,
		"chain " + f.peer.Addr + " IPv4":       Passed, // needs no certificate of this node
		"accepted " + f.peer.Addr + " IPv4":    Skipped,
		"connect " + f.peer.Addr + " IPv4":     Skipped,
	} {
		if states[key] != want {
			t.Errorf("%s: %q, expected %s", key, states[key], want)
		}
	}
}

// checkDocumented checks that the documentation explains a check.
func checkDocumented(t *testing.T, name string) {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join("..", "docs", "doctor.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), "\n| `"+name+"` | ") {
		t.Errorf("docs/doctor.md does not explain the check %q", name)
	}
}

// tree returns the names, sizes and times of all files in a folder.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var text strings.Builder
	err := filepath.Walk(dir, func(path string, fi os.FileInfo, err error) error {
		if err == nil {
			text.WriteString(path + " " + fi.Mode().String() + " " + fi.ModTime().String() + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// With a proxy, the checks of the name and of the connection say that the proxy does both, and the
// others are the same.
func TestThroughProxy(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const server = "peer.invalid:1234"
	f.peerServers(server)
	f.peer.Start()
	s := &proxytest.Server{Hosts: map[string]string{server: f.peer.Addr}}
	f.must(s.Start("socks5"))
	t.Cleanup(func() { s.Close() })
	proxy, err := outproxy.Parse("socks5://" + s.Addr())
	f.must(err)
	f.cfg.Proxy = proxy
	r, err := Run(t.Context(), f.cfg)
	f.must(err)
	for name, want := range map[string]string{
		"dns":        "resolved by the proxy " + proxy.String() + ", not here",
		"tcp":        "through the proxy " + proxy.String(),
		"registered": "the peer knows this node",
	} {
		found := false
		for _, c := range r.Checks {
			if c.Name == name && c.Peer != "" {
				found = c.State == Passed && strings.Contains(c.Detail, want)
				if !found {
					t.Errorf("%+v, want %q", c, want)
				}
			}
		}
		if !found {
			t.Errorf("no check %s has passed", name)
		}
	}
}
