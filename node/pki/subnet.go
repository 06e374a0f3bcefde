package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"peerlink/node/nodetype"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// errSubnet is returned for a subnet, or a comment with a subnet in a certificate, that
// does not conform to the specification.
var errSubnet = errors.New("invalid subnet")

const subnetPrefix = "Subnet: "

// SubnetComment returns the subnet in the nsComment extension of a peer certificate, which
// is the subnet that an accounting authority has given to the peer: 6 to 16 lowercase hex
// digits after "Subnet: " ("Swaptacular SSL/TLS Certificates", section "Peer
// certificates"). ok is false if there is no comment or another comment, such as the empty
// comment that the reference writes for agents. If the comment begins like a subnet but is
// invalid, SubnetComment returns an error.
func SubnetComment(cert *x509.Certificate) (subnet string, ok bool, err error) {
	ext := findExtension(cert, oidNetscapeComment)
	if ext == nil {
		return "", false, nil
	}
	s := cryptobyte.String(ext.Value)
	var text cryptobyte.String
	if !s.ReadASN1(&text, cbasn1.IA5String) || !s.Empty() {
		return "", false, fmt.Errorf("%w: malformed nsComment extension: expected an IA5String", errSubnet)
	}
	if !strings.HasPrefix(string(text), strings.TrimSpace(subnetPrefix)) {
		return "", false, nil
	}
	subnet, ok = strings.CutPrefix(string(text), subnetPrefix)
	if !ok || len(subnet) < 6 || len(subnet) > 16 || !isLowerHex(subnet) {
		return "", false, fmt.Errorf("%w: nsComment %q: expected %q and 6 to 16 lowercase hex digits",
			errSubnet, clip(string(text)), subnetPrefix)
	}
	return subnet, true, nil
}

// CheckSubnet checks that a peer certificate from issuer to peer may have the subnet, or no
// subnet if subnet is "". An accounting authority must give one: 6 digits, not all zero, to a
// creditors agent; 8 to 16 digits, beginning with the authority's ID, to a debtors agent. An
// agent must give none.
func CheckSubnet(issuer, peer Identity, subnet string) error {
	if issuer.Type != nodetype.AccountingAuthority {
		if subnet != "" {
			return fmt.Errorf("%w %q: %v gives no subnets", errSubnet, clip(subnet), issuer)
		}
		return nil
	}
	switch {
	case !peer.Type.IDDerived():
		return fmt.Errorf("%w %q: accounting authorities give subnets to agents only, not to %v", errSubnet, clip(subnet), peer)
	case !isLowerHex(subnet):
		return fmt.Errorf("%w %q: expected lowercase hex digits", errSubnet, clip(subnet))
	case peer.Type == nodetype.CreditorsAgent && len(subnet) != 6:
		return fmt.Errorf("%w %q: expected 6 hex digits for a creditors agent", errSubnet, clip(subnet))
	case peer.Type == nodetype.CreditorsAgent && subnet == "000000":
		return fmt.Errorf("%w %q: it contains the creditor ID 0, which is that of the issuer of each currency", errSubnet, clip(subnet))
	case peer.Type == nodetype.DebtorsAgent && (len(subnet) < 8 || len(subnet) > 16 || !strings.HasPrefix(subnet, issuer.ID)):
		return fmt.Errorf("%w %q: expected 8 to 16 hex digits that begin with %s for a debtors agent",
			errSubnet, clip(subnet), issuer.ID)
	}
	return nil
}
