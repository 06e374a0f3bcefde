package cli

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"
)

// prefixes is the value of a flag for ranges of IP addresses.
type prefixes []netip.Prefix

func proxyFromFlag(c *cobra.Command, p *prefixes) {
	c.Flags().Var(p, "proxy-from", "`ADDRESSES` of load balancers that send PROXY headers (version 1 or 2), as 192.0.2.1 or 10.0.0.0/8,fd00::/8; the header is required from these addresses, and from others it is an error")
	fromEnv(c.Flags(), "proxy-from", "PEERLINK_PROXY_FROM")
}

// Set adds addresses and CIDR ranges, separated by commas.
func (p *prefixes) Set(s string) error {
	var list prefixes
	for item := range strings.SplitSeq(s, ",") {
		item = strings.TrimSpace(item)
		prefix, err := netip.ParsePrefix(item)
		if err != nil {
			var addr netip.Addr
			if addr, err = netip.ParseAddr(item); err == nil && addr.Zone() == "" {
				addr = addr.Unmap()
				prefix = netip.PrefixFrom(addr, addr.BitLen())
			}
		}
		if !prefix.IsValid() || prefix.Addr().Is4In6() {
			return fmt.Errorf("expected IP addresses or ranges like 192.0.2.1 or 10.0.0.0/8, with commas between them; %q is neither an address nor a range", item)
		}
		list = append(list, prefix.Masked())
	}
	*p = append(*p, list...)
	return nil
}

// String returns the ranges in the format of Set.
func (p *prefixes) String() string {
	list := make([]string, len(*p))
	for i, prefix := range *p {
		list[i] = prefix.String()
	}
	return strings.Join(list, ",")
}

// Type returns the type shown in the help.
func (*prefixes) Type() string { return "ADDRESSES" }
