package follow

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// control is the Control function of the dialer: it is called before every connection, with the
// resolved address. Checking the host name earlier would not be sufficient, because DNS may return
// another address a moment later.
func (f *Fetcher) control(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if f.AllowLocal {
		return nil
	}
	own, err := f.ownAddresses()
	if err != nil {
		return fmt.Errorf("no connection is made, because the addresses of this machine cannot be determined: %w", err)
	}
	if isLocal(a.Addr()) || slices.Contains(own, plain(a.Addr())) {
		return fmt.Errorf("%w: %s", errLocal, a.Addr())
	}
	return nil
}

// ownAddresses returns the addresses of this machine's interfaces and those of OwnHosts. The
// interfaces are read at each call, because their addresses may change; OwnHosts are resolved once
// for each fetch.
func (f *Fetcher) ownAddresses() ([]netip.Addr, error) {
	interfaces := f.interfaces
	if interfaces == nil {
		interfaces = net.InterfaceAddrs
	}
	nets, err := interfaces()
	if err != nil {
		return nil, err
	}
	own := slices.Clone(f.ownHostAddrs)
	for _, n := range nets {
		if p, err := netip.ParsePrefix(n.String()); err == nil {
			own = append(own, plain(p.Addr()))
		}
	}
	return own, nil
}

// maxOwnHosts and ownHostsTime bound the lookup of OwnHosts.
const (
	maxOwnHosts  = 20
	ownHostsTime = 5 * time.Second
)

// lookupOwnHosts returns the addresses of this node's own hosts. It skips hosts that cannot be
// resolved, and those after the first maxOwnHosts.
func lookupOwnHosts(ctx context.Context, hosts []string) (own []netip.Addr) {
	ctx, cancel := context.WithTimeout(ctx, ownHostsTime)
	defer cancel()
	for _, host := range hosts[:min(len(hosts), maxOwnHosts)] {
		addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			continue
		}
		for _, a := range addrs {
			own = append(own, plain(a))
		}
	}
	return own
}

// localNetworks are the networks whose addresses are not globally unique or not of a single host,
// in addition to those for which [netip.Addr] has methods.
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

// translatedNetworks are the networks of IPv6 addresses with an IPv4 address in the last four bytes.
var translatedNetworks = prefixes(
	"64:ff9b::/96",    // NAT64 (RFC 6052)
	"::ffff:0:0:0/96", // IPv4-translated (RFC 2765)
	"::/96",           // IPv4-compatible (RFC 4291)
)

// teredo addresses have an IPv4 address in the last four bytes, inverted (RFC 4380).
var teredo = netip.MustParsePrefix("2001::/32")

// sixToFour addresses have an IPv4 address in bytes 2 to 5 (RFC 3056).
var sixToFour = netip.MustParsePrefix("2002::/16")

func prefixes(list ...string) []netip.Prefix {
	p := make([]netip.Prefix, len(list))
	for i, s := range list {
		p[i] = netip.MustParsePrefix(s)
	}
	return p
}

// plain returns an address without a zone. IPv6 addresses that embed an IPv4 address, to which a
// network may translate them, are returned as that IPv4 address.
func plain(a netip.Addr) netip.Addr {
	a = a.WithZone("").Unmap()
	bytes := a.As16()
	switch {
	case slices.ContainsFunc(translatedNetworks, func(p netip.Prefix) bool { return p.Contains(a) }) && !a.IsLoopback() && !a.IsUnspecified():
		return netip.AddrFrom4([4]byte(bytes[12:]))
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(bytes[2:6]))
	case teredo.Contains(a):
		return netip.AddrFrom4([4]byte{^bytes[12], ^bytes[13], ^bytes[14], ^bytes[15]})
	}
	return a
}

// isLocal reports whether an address is local to a machine or a network, or not the address of a
// single host.
func isLocal(a netip.Addr) bool {
	a = plain(a)
	within := func(p netip.Prefix) bool { return p.Contains(a) }
	return a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.IsPrivate() ||
		slices.ContainsFunc(localNetworks, within)
}
