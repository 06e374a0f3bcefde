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

// ErrSubnet is returned for a subnet, or a comment in a certificate that should
// carry one, which does not follow the specification.
var ErrSubnet = errors.New("invalid subnet")

const subnetPrefix = "Subnet: "

// SubnetComment reads the subnet that an accounting authority has given to a
// peer from the nsComment extension of the peer certificate: 6 to 16 lowercase
// hex digits after "Subnet: " ("Swaptacular SSL/TLS Certificates", section
// "Peer certificates"). It returns false if there is no comment, or a comment
// about something else; the reference writes an empty one if it is not an
// accounting authority. A comment that begins like a subnet and is none gives
// an error that wraps [ErrSubnet].
func SubnetComment(cert *x509.Certificate) (subnet string, ok bool, err error) {
	ext := findExtension(cert, oidNetscapeComment)
	if ext == nil {
		return "", false, nil
	}
	s := cryptobyte.String(ext.Value)
	var text cryptobyte.String
	if !s.ReadASN1(&text, cbasn1.IA5String) || !s.Empty() {
		return "", false, fmt.Errorf("%w: malformed nsComment extension: expected an IA5String", ErrSubnet)
	}
	if !strings.HasPrefix(string(text), strings.TrimSpace(subnetPrefix)) {
		return "", false, nil
	}
	subnet, ok = strings.CutPrefix(string(text), subnetPrefix)
	if !ok || len(subnet) < 6 || len(subnet) > 16 || !isLowerHex(subnet) {
		return "", false, fmt.Errorf("%w: nsComment %q: expected %q and 6 to 16 lowercase hex digits",
			ErrSubnet, clip(string(text)), subnetPrefix)
	}
	return subnet, true, nil
}

// CheckSubnet reports whether a peer certificate from issuer to peer may carry
// the subnet, "" for none. Only accounting authorities give subnets: 6 digits
// to a creditors agent; 8 to 16, the authority's own ID first, to a debtors
// agent. The error wraps [ErrSubnet].
func CheckSubnet(issuer, peer Identity, subnet string) error {
	if issuer.Type != nodetype.AccountingAuthority {
		if subnet != "" {
			return fmt.Errorf("%w %q: %v gives no subnets", ErrSubnet, clip(subnet), issuer)
		}
		return nil
	}
	switch {
	case !peer.Type.IDDerived():
		return fmt.Errorf("%w %q: accounting authorities give subnets to agents only, not to %v", ErrSubnet, clip(subnet), peer)
	case !isLowerHex(subnet):
		return fmt.Errorf("%w %q: expected lowercase hex digits", ErrSubnet, clip(subnet))
	case peer.Type == nodetype.CreditorsAgent && len(subnet) != 6:
		return fmt.Errorf("%w %q: expected 6 hex digits for a creditors agent", ErrSubnet, clip(subnet))
	case peer.Type == nodetype.DebtorsAgent && (len(subnet) < 8 || len(subnet) > 16 || !strings.HasPrefix(subnet, issuer.ID)):
		return fmt.Errorf("%w %q: expected 8 to 16 hex digits that begin with %s for a debtors agent",
			ErrSubnet, clip(subnet), issuer.ID)
	}
	return nil
}
