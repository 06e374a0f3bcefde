package pki

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"slices"
)

// SignedAgain reports whether two certificates were signed for the same request: whether they have the
// same serial number, issuer, subject, public key and extensions, and differ at most in the dates and the signature.
// It does not verify the signatures.
func SignedAgain(a, b *x509.Certificate) bool {
	return a.SerialNumber.Cmp(b.SerialNumber) == 0 && a.Version == b.Version && a.SignatureAlgorithm == b.SignatureAlgorithm &&
		bytes.Equal(a.RawIssuer, b.RawIssuer) && bytes.Equal(a.RawSubject, b.RawSubject) &&
		bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo) &&
		slices.EqualFunc(a.Extensions, b.Extensions, func(x, y pkix.Extension) bool {
			return x.Id.Equal(y.Id) && x.Critical == y.Critical && bytes.Equal(x.Value, y.Value)
		})
}
