package pki_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"peerlink/node/pki"
)

// Only a certificate for the same request is taken for one that was signed again: one that differs in anything
// but dates and signature is not.
func TestSignedAgain(t *testing.T) {
	key, err := pki.GenerateKey(pki.P256)
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.GenerateKey(pki.P256)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(change func(c *x509.Certificate), public any) *x509.Certificate {
		t.Helper()
		c := &x509.Certificate{
			SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "a"}, NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(2e9, 0),
			ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}}},
		}
		change(c)
		issuer := &x509.Certificate{Subject: pkix.Name{CommonName: "root"}}
		der, err := x509.CreateCertificate(nil, c, issuer, public, key)
		if err != nil {
			t.Fatal(err)
		}
		if c, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		return c
	}
	same := func(*x509.Certificate) {}
	first := issue(same, key.Public())
	for name, c := range map[string]struct {
		cert *x509.Certificate
		want bool
	}{
		"signature":    {issue(same, key.Public()), true},
		"dates":        {issue(func(c *x509.Certificate) { c.NotAfter = time.Unix(19e8, 0) }, key.Public()), true},
		"serial":       {issue(func(c *x509.Certificate) { c.SerialNumber = big.NewInt(8) }, key.Public()), false},
		"subject":      {issue(func(c *x509.Certificate) { c.Subject.CommonName = "b" }, key.Public()), false},
		"key":          {issue(same, other.Public()), false},
		"extension":    {issue(func(c *x509.Certificate) { c.ExtraExtensions[0].Value = []byte{1, 1, 0} }, key.Public()), false},
		"critical":     {issue(func(c *x509.Certificate) { c.ExtraExtensions[0].Critical = true }, key.Public()), false},
		"no extension": {issue(func(c *x509.Certificate) { c.ExtraExtensions = nil }, key.Public()), false},
	} {
		if got := pki.SignedAgain(first, c.cert); got != c.want {
			t.Errorf("another %s: SignedAgain is %v, want %v", name, got, c.want)
		}
	}
}
