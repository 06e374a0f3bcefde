package link_test

import (
	"net"
	"testing"
	"time"

	"peerlink/internal/dnstest"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// names is the name server of all tests, once TestMain has started it.
var names *dnstest.Server

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
			name := names.Register(t, append(tt.others, tt.server)...)
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
