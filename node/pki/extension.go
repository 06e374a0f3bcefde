package pki

import (
	"crypto"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

var (
	oidOrganization       = asn1.ObjectIdentifier{2, 5, 4, 10}
	oidOrganizationalUnit = asn1.ObjectIdentifier{2, 5, 4, 11}
	oidSerialNumber       = asn1.ObjectIdentifier{2, 5, 4, 5}
	oidEmailAddress       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}

	oidSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidNameConstraints  = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidAuthorityKeyID   = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidNetscapeComment  = asn1.ObjectIdentifier{2, 16, 840, 1, 113730, 1, 13}
)

// The extensions and their order are exactly those of the reference's OpenSSL
// configuration. crypto/x509 could write most of them, but in another order, with
// another key identifier, and without the authority's key identifier in a server
// certificate, because its subject and issuer are the same.

// basicConstraintsCA returns CA:true with a path length.
func basicConstraintsCA(pathLen byte) pkix.Extension {
	return pkix.Extension{Id: oidBasicConstraints, Critical: true,
		Value: []byte{0x30, 6, 0x01, 1, 0xff, 0x02, 1, pathLen}}
}

// basicConstraintsLeaf returns CA:false. DER omits it, because it is the default.
func basicConstraintsLeaf() pkix.Extension {
	return pkix.Extension{Id: oidBasicConstraints, Critical: true, Value: []byte{0x30, 0}}
}

// keyUsageCA returns keyCertSign and cRLSign.
func keyUsageCA() pkix.Extension {
	return pkix.Extension{Id: oidKeyUsage, Critical: true, Value: []byte{0x03, 2, 1, 0b0000_0110}}
}

// keyUsageServer returns digitalSignature and keyEncipherment.
func keyUsageServer() pkix.Extension {
	return pkix.Extension{Id: oidKeyUsage, Critical: true, Value: []byte{0x03, 2, 5, 0b1010_0000}}
}

// extKeyUsageServer returns clientAuth and serverAuth.
func extKeyUsageServer() pkix.Extension {
	return pkix.Extension{Id: oidExtKeyUsage, Value: []byte("\x30\x14" +
		"\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x02" +
		"\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01")}
}

func subjectKeyID(pub crypto.PublicKey) (pkix.Extension, error) {
	id, err := keyID(pub)
	if err != nil {
		return pkix.Extension{}, err
	}
	return pkix.Extension{Id: oidSubjectKeyID, Value: append([]byte{0x04, sha1.Size}, id...)}, nil
}

func authorityKeyID(pub crypto.PublicKey) (pkix.Extension, error) {
	id, err := keyID(pub)
	if err != nil {
		return pkix.Extension{}, err
	}
	return pkix.Extension{Id: oidAuthorityKeyID, Value: append([]byte{0x30, sha1.Size + 2, 0x80, sha1.Size}, id...)}, nil
}

// keyID returns the SHA-1 hash of the content of the BIT STRING in SubjectPublicKeyInfo
// (RFC 5280, section 4.2.1.2, method 1). It is an identifier; security does not depend on
// it.
func keyID(pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyKind, err)
	}
	s := cryptobyte.String(der)
	var spki cryptobyte.String
	var bits []byte
	if !s.ReadASN1(&spki, cbasn1.SEQUENCE) || !spki.SkipASN1(cbasn1.SEQUENCE) || !spki.ReadASN1BitStringAsBytes(&bits) {
		return nil, fmt.Errorf("%w: malformed SubjectPublicKeyInfo", ErrKeyKind)
	}
	sum := sha1.Sum(bits)
	return sum[:], nil
}

// permitOnly returns the name constraint of a peer certificate, which permits the given
// name only.
func permitOnly(rawSubject []byte) (pkix.Extension, error) {
	n, err := parseName(rawSubject)
	if err != nil {
		return pkix.Extension{}, err
	}
	nc := nameConstraints{permitted: []generalName{{tag: tagDirectoryName, dir: n}}}
	value, err := nc.marshal()
	return pkix.Extension{Id: oidNameConstraints, Critical: true, Value: value}, err
}

// netscapeComment returns the nsComment extension with the given text.
func netscapeComment(text string) (pkix.Extension, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.IA5String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(text)) })
	value, err := b.Bytes()
	return pkix.Extension{Id: oidNetscapeComment, Value: value}, err
}

// findExtension returns the certificate's extension with the given OID, or nil.
func findExtension(cert *x509.Certificate, oid asn1.ObjectIdentifier) *pkix.Extension {
	for i := range cert.Extensions {
		if cert.Extensions[i].Id.Equal(oid) {
			return &cert.Extensions[i]
		}
	}
	return nil
}
