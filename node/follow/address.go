package follow

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// control is asked about every connection, with the address that the name has
// led to. A check of the name alone could be tricked: DNS may answer differently
// a moment later.
func (f *Fetcher) control(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if !f.AllowLocal && isLocal(a.Addr()) {
		return fmt.Errorf("%w: %s", ErrLocal, a.Addr())
	}
	return nil
}

// localNetworks are those that mean something else in each network, or no single
// host at all, besides those that [netip.Addr] knows by name.
var localNetworks = prefixes(
	"0.0.0.0/8",      // this network (RFC 791)
	"100.64.0.0/10",  // behind a provider's NAT (RFC 6598)
	"192.0.0.0/24",   // protocol assignments (RFC 6890)
	"198.18.0.0/15",  // benchmarks (RFC 2544)
	"240.0.0.0/4",    // reserved, and broadcast (RFC 1112)
	"64:ff9b:1::/48", // NAT64 of one network (RFC 8215)
	"100::/64",       // discarded (RFC 6666)
	"fec0::/10",      // site-local (RFC 3879)
)

// translated are the networks behind whose addresses there is an IPv4 address,
// in the last four bytes.
var translated = prefixes(
	"64:ff9b::/96",    // NAT64 (RFC 6052)
	"::ffff:0:0:0/96", // IPv4-translated (RFC 2765)
	"::/96",           // IPv4-compatible (RFC 4291)
)

// sixToFour addresses have an IPv4 address in bytes 2 to 5 (RFC 3056).
var sixToFour = netip.MustParsePrefix("2002::/16")

func prefixes(list ...string) []netip.Prefix {
	p := make([]netip.Prefix, len(list))
	for i, s := range list {
		p[i] = netip.MustParsePrefix(s)
	}
	return p
}

// isLocal tells whether an address means something else on each machine or in
// each network, or no single host at all.
func isLocal(a netip.Addr) bool {
	a = a.WithZone("").Unmap()
	within := func(p netip.Prefix) bool { return p.Contains(a) }
	bytes := a.As16()
	switch {
	case a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.IsPrivate():
		return true
	case slices.ContainsFunc(localNetworks, within):
		return true
	case slices.ContainsFunc(translated, within):
		return isLocal(netip.AddrFrom4([4]byte(bytes[12:])))
	case within(sixToFour):
		return isLocal(netip.AddrFrom4([4]byte(bytes[2:6])))
	}
	return false
}
