package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"testing"

	"peerlink/node/nodetype"
)

// SubnetComment returns a subnet, or reports that the comment is something else, or
// returns an error if the subnet is invalid.
func TestSubnetComment(t *testing.T) {
	for _, tt := range []struct {
		value  []byte
		subnet string
		ok     bool
		err    error
	}{
		{tlv(0x16, []byte("Subnet: 00000a")), "00000a", true, nil},
		{tlv(0x16, []byte("Subnet: 0123456789abcdef")), "0123456789abcdef", true, nil},
		{tlv(0x16), "", false, nil},
		{tlv(0x16, []byte("OpenSSL Generated Certificate")), "", false, nil},
		{tlv(0x16, []byte("Subnet: 00000")), "", false, errSubnet},
		{tlv(0x16, []byte("Subnet: 0123456789abcdef0")), "", false, errSubnet},
		{tlv(0x16, []byte("Subnet: 00000A")), "", false, errSubnet},
		{tlv(0x16, []byte("Subnet:00000a")), "", false, errSubnet},
		{tlv(0x16, []byte("Subnet:  00000a")), "", false, errSubnet},
		{tlv(0x16, []byte("Subnet: 00000a\n")), "", false, errSubnet},
		{tlv(0x16, []byte("Subnet: 00000a 00000b")), "", false, errSubnet},
		{tlv(0x0c, []byte("Subnet: 00000a")), "", false, errSubnet},
		{append(tlv(0x16, []byte("Subnet: 00000a")), 0), "", false, errSubnet},
		{nil, "", false, errSubnet},
	} {
		cert := &x509.Certificate{Extensions: []pkix.Extension{keyUsageCA(), {Id: oidNetscapeComment, Value: tt.value}}}
		subnet, ok, err := SubnetComment(cert)
		if subnet != tt.subnet || ok != tt.ok || !errors.Is(err, tt.err) {
			t.Errorf("%q: got %q, %v, %v, want %q, %v, %v", tt.value, subnet, ok, err, tt.subnet, tt.ok, tt.err)
		}
	}
	if subnet, ok, err := SubnetComment(&x509.Certificate{}); subnet != "" || ok || err != nil {
		t.Errorf("no comment: got %q, %v, %v", subnet, ok, err)
	}
}

// CheckSubnet accepts only the form of subnet for the given pair of node types, and
// only pairs that can be peers.
func TestCheckSubnet(t *testing.T) {
	aa := Identity{nodetype.AccountingAuthority, "1234abcd"}
	ca, da := Identity{nodetype.CreditorsAgent, agentID}, Identity{nodetype.DebtorsAgent, agentID}
	for _, tt := range []struct {
		issuer, peer Identity
		subnet       string
		ok           bool
	}{
		{aa, ca, "00000a", true}, {aa, ca, "ffffff", true},
		{aa, ca, "", false}, {aa, ca, "0000a", false}, {aa, ca, "000000a", false}, {aa, ca, "00000A", false}, {aa, ca, "00 00a", false},
		{aa, da, "1234abcd", true}, {aa, da, "1234abcd00", true}, {aa, da, "1234abcd01234567", true},
		{aa, da, "", false}, {aa, da, "1234abc", false}, {aa, da, "1234abcd012345678", false}, {aa, da, "1234abce00", false}, {aa, da, "00000a", false},
		{aa, aa, "1234abcd00", false}, {aa, aa, "", false},
		{ca, aa, "", true}, {da, aa, "", true}, {ca, aa, "00000a", false}, {da, aa, "1234abcd00", false},
	} {
		if err := CheckSubnet(tt.issuer, tt.peer, tt.subnet); (err == nil) != tt.ok || err != nil && !errors.Is(err, errSubnet) {
			t.Errorf("%v to %v, %q: got %v, want ok = %v", tt.issuer, tt.peer, tt.subnet, err, tt.ok)
		}
	}
}
