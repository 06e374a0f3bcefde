package link_test

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// nameserver answers the address queries of this test binary, with the names that tests
// have registered and no others.
type nameserver struct {
	conn  net.PacketConn
	mu    sync.Mutex
	names map[string][]netip.Addr
}

// names is the name server of all tests, once TestMain has started it.
var names *nameserver

// startNames replaces the system's resolver by a name server.
func startNames() error {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	names = &nameserver{conn: conn, names: make(map[string][]netip.Addr)}
	go names.serve()
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	return nil
}

// give registers a name of the test's own for addresses, and returns it.
func (s *nameserver) give(t *testing.T, addrs ...string) string {
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-", ",", "").Replace(t.Name())) + ".test"
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range addrs {
		s.names[name+"."] = append(s.names[name+"."], netip.MustParseAddr(a))
	}
	return name
}

func (s *nameserver) serve() {
	buf := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if answer, err := s.answer(buf[:n]); err == nil {
			_, _ = s.conn.WriteTo(answer, from)
		}
	}
}

func (s *nameserver) answer(query []byte) ([]byte, error) {
	var p dnsmessage.Parser
	head, err := p.Start(query)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	addrs, known := s.names[q.Name.String()]
	s.mu.Unlock()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: head.ID, Response: true, RecursionAvailable: true},
		Questions: []dnsmessage.Question{q},
	}
	if !known {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range addrs {
		h := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class}
		switch {
		case q.Type == dnsmessage.TypeA && a.Is4():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
		case q.Type == dnsmessage.TypeAAAA && a.Is6():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	return m.Pack()
}

// mute opens an address that accepts connections and never sends anything, as if the
// path to it dropped everything larger than a few bytes.
func mute(t *testing.T, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skipf("skipped, a server at %s: %v", addr, err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
		}
	}()
}

// strange opens an address where another kind of server answers.
func strange(t *testing.T, addr string) {
	t.Helper()
	other := linktest.New(t, da)
	other.Addr = addr
	other.Start()
}

// If a name has several addresses, those that do not work cause no long delay, whatever
// is wrong with them and whichever family they are of: no server listens there, packets
// are dropped, connections are accepted without an answer, or another kind of server
// answers.
func TestNameWithSeveralAddresses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		server string // the address of the node
		others []string
		are    func(t *testing.T, addr string) // what listens on the other addresses; nil: nothing
	}{
		{"nobody on IPv6", "127.0.0.1", []string{"::1"}, nil},
		{"IPv6 swallows packets", "127.0.0.1", []string{"::1"}, swallow},
		{"IPv4 swallows packets", "::1", []string{"127.0.0.1"}, swallow},
		{"IPv6 is mute", "127.0.0.1", []string{"::1"}, mute},
		{"most of IPv4 is mute", "127.0.0.4", []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"}, mute},
		{"strangers", "127.0.0.3", []string{"::1", "127.0.0.1", "127.0.0.2"}, strange},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			authority, other := linktest.New(t, aa), linktest.New(t, ca)
			_, port, err := net.SplitHostPort(authority.Addr)
			if err != nil {
				t.Fatal(err)
			}
			authority.Addr = net.JoinHostPort(tt.server, port)
			if l, err := net.Listen("tcp", authority.Addr); err != nil {
				t.Skipf("skipped, a server at %s: %v", authority.Addr, err)
			} else {
				l.Close()
			}
			for _, addr := range tt.others {
				if tt.are != nil {
					tt.are(t, net.JoinHostPort(addr, port))
				}
			}
			name := names.give(t, append(tt.others, tt.server)...)
			authority.WriteStompTOML(net.JoinHostPort(name, port))
			nodetest.Peer(t, authority.Node, other.Node)
			authority.Start()
			other.Config.HandshakeTimeout = 3 * time.Second
			other.Config.ConnectTimeout = linktest.Timeout
			other.Config.RetryMin, other.Config.RetryMax = 24*time.Hour, 24*time.Hour // only the first attempt counts
			start := time.Now()
			other.Start()
			other.Put(authority, linktest.Message(t, other, authority, 1))
			authority.Take(1)
			// Waiting for a TCP connection takes ConnectTimeout.
			if took := time.Since(start); took > linktest.Timeout/2 {
				t.Errorf("it took %v", took)
			}
		})
	}
}
