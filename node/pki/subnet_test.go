package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"testing"
)

// The comment is a subnet, or something else, or an error; never a guess.
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
		{tlv(0x16, []byte("Subnet: 00000")), "", false, ErrSubnet},
		{tlv(0x16, []byte("Subnet: 0123456789abcdef0")), "", false, ErrSubnet},
		{tlv(0x16, []byte("Subnet: 00000A")), "", false, ErrSubnet},
		{tlv(0x16, []byte("Subnet:00000a")), "", false, ErrSubnet},
		{tlv(0x16, []byte("Subnet:  00000a")), "", false, ErrSubnet},
		{tlv(0x16, []byte("Subnet: 00000a\n")), "", false, ErrSubnet},
		{tlv(0x16, []byte("Subnet: 00000a 00000b")), "", false, ErrSubnet},
		{tlv(0x0c, []byte("Subnet: 00000a")), "", false, ErrSubnet},
		{append(tlv(0x16, []byte("Subnet: 00000a")), 0), "", false, ErrSubnet},
		{nil, "", false, ErrSubnet},
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
