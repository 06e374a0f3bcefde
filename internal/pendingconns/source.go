package pendingconns

import (
	"net"
	"net/netip"
)

// SourceOf returns the prefix that counts as one source: an IPv4 address, or an IPv6
// /64, the smallest prefix that a site gets. All other kinds of addresses are one
// source.
func SourceOf(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	prefix, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}
