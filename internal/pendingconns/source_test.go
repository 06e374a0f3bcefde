package pendingconns

import (
	"net"
	"net/netip"
	"testing"
)

// A source is an IPv4 address, or an IPv6 /64.
func TestSourceOf(t *testing.T) {
	for _, tt := range []struct{ a, b string }{
		{"192.0.2.1:1", "192.0.2.1/32"},
		{"[::ffff:192.0.2.1]:1", "192.0.2.1/32"},
		{"[2001:db8:1:2:3:4:5:6]:1", "2001:db8:1:2::/64"},
		{"[fe80::1%eth0]:1", "fe80::/64"},
	} {
		if got := SourceOf(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(tt.a))).String(); got != tt.b {
			t.Errorf("%s is of %s, want %s", tt.a, got, tt.b)
		}
	}
	if got := SourceOf(&net.UnixAddr{}); got.IsValid() {
		t.Errorf("a Unix socket is of %v", got)
	}
}
