package pki

import (
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// convertKey is the advice for converting a key that OpenSSL can read to a format that
// this package can read.
const convertKey = `convert a copy with "openssl pkcs8 -topk8 -v2 aes256 -in OLD -out NEW"`

// algorithmNames has the names of algorithms and curves for errors, by object identifier.
var algorithmNames = map[string]string{
	"1.2.840.113549.1.5.3":      "PBE-MD5-DES",
	"1.2.840.113549.1.5.6":      "PBE-MD5-RC2-64",
	"1.2.840.113549.1.5.10":     "PBE-SHA1-DES",
	"1.2.840.113549.1.12.1.1":   "PBE-SHA1-RC4-128",
	"1.2.840.113549.1.12.1.3":   "PBE-SHA1-3DES",
	"1.2.840.113549.1.12.1.6":   "PBE-SHA1-RC2-40",
	"1.2.392.200011.61.1.1.1.2": "Camellia-128-CBC",
	"1.2.392.200011.61.1.1.1.4": "Camellia-256-CBC",
	"1.2.410.200046.1.1.2":      "ARIA-128-CBC",
	"1.2.410.200046.1.1.12":     "ARIA-256-CBC",
	"2.16.840.1.101.3.4.1.6":    "AES-128-GCM",
	"2.16.840.1.101.3.4.1.46":   "AES-256-GCM",
	"1.2.840.113549.1.1.1":      "RSA",
	"1.2.840.113549.1.1.10":     "RSA-PSS",
	"1.2.840.10040.4.1":         "DSA",
	"1.2.840.10046.2.1":         "Diffie-Hellman",
	"1.2.840.10045.2.1":         "EC",
	"1.3.101.110":               "X25519",
	"1.3.101.111":               "X448",
	"1.3.101.112":               "Ed25519",
	"1.3.101.113":               "Ed448",
	"1.3.132.0.10":              "EC on the curve secp256k1",
	"1.2.840.10045.3.1.1":       "EC on the curve P-192",
	"1.3.132.0.33":              "EC on the curve P-224",
	"1.3.36.3.3.2.8.1.1.7":      "EC on the curve brainpoolP256r1",
	"1.3.36.3.3.2.8.1.1.11":     "EC on the curve brainpoolP384r1",
	"1.3.36.3.3.2.8.1.1.13":     "EC on the curve brainpoolP512r1",
}

// nameOf returns the name of an object identifier.
func nameOf(oid asn1.ObjectIdentifier) string {
	if name := algorithmNames[oid.String()]; name != "" {
		return name
	}
	return oid.String()
}

func unsupportedEncryption(what string, oid asn1.ObjectIdentifier) error {
	hint := convertKey
	if strings.HasPrefix(nameOf(oid), "PBE-MD5") || strings.Contains(nameOf(oid), "-RC") {
		hint += ` (OpenSSL 3 needs "-provider legacy -provider default" too)`
	}
	return fmt.Errorf("%w: unsupported %s %s: %s", errNotKey, what, nameOf(oid), hint)
}

// An algorithm is the algorithm identifier of a private key.
type algorithm struct {
	oid      asn1.ObjectIdentifier
	curve    asn1.ObjectIdentifier // of an EC key, if it has one with a name
	explicit bool                  // the curve is not named but written out
}

// algorithmOf returns the algorithm of a decrypted private key. It returns false if der
// cannot be a key, as after decryption with a wrong passphrase.
func algorithmOf(pemType string, der []byte) (algorithm, bool) {
	s := cryptobyte.String(der)
	var key cryptobyte.String
	if !s.ReadASN1(&key, cbasn1.SEQUENCE) || !s.Empty() {
		return algorithm{}, false
	}
	var version int64
	rest := key
	if !rest.ReadASN1Integer(&version) || !wellFormed(rest) {
		return algorithm{}, false
	}
	switch pemType {
	case pemPKCS1Key:
		return algorithm{oid: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}}, true
	case pemSEC1Key:
		a := algorithm{oid: oidEC}
		var params cryptobyte.String
		var found bool
		if !rest.SkipASN1(cbasn1.OCTET_STRING) || !rest.ReadOptionalASN1(&params, &found, cbasn1.Tag(0).Constructed().ContextSpecific()) {
			return algorithm{}, false
		}
		a.setCurve(params)
		return a, true
	}
	var id cryptobyte.String
	var a algorithm
	if !rest.ReadASN1(&id, cbasn1.SEQUENCE) || !id.ReadASN1ObjectIdentifier(&a.oid) || !rest.SkipASN1(cbasn1.OCTET_STRING) {
		return algorithm{}, false
	}
	if a.oid.Equal(oidEC) {
		a.setCurve(id)
	}
	return a, true
}

var oidEC = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}

func (a *algorithm) setCurve(params cryptobyte.String) {
	a.explicit = params.PeekASN1Tag(cbasn1.SEQUENCE)
	if !a.explicit {
		params.ReadASN1ObjectIdentifier(&a.curve)
	}
}

// wellFormed reports whether s consists of ASN.1 elements.
func wellFormed(s cryptobyte.String) bool {
	for !s.Empty() {
		var element cryptobyte.String
		var tag cbasn1.Tag
		if !s.ReadAnyASN1Element(&element, &tag) {
			return false
		}
	}
	return true
}

// explainAlgorithm returns a description of the key's kind, and the remedy.
func explainAlgorithm(a algorithm) string {
	switch {
	case a.explicit:
		return `an EC key whose curve is written out instead of named: convert a copy with "openssl pkey -ec_param_enc named_curve -in OLD | openssl pkcs8 -topk8 -v2 aes256 -out NEW"`
	case a.oid.Equal(oidEC) && len(a.curve) > 0:
		return fmt.Sprintf("a key of the kind %s: expected RSA, or ECDSA on P-256, P-384 or P-521", nameOf(a.curve))
	case nameOf(a.oid) == "RSA" || a.oid.Equal(oidEC):
		return fmt.Sprintf("an %s key that is damaged, or has an unusual form: \"openssl pkey -check -noout -in FILE\" shows more", nameOf(a.oid))
	}
	return fmt.Sprintf("a key of the kind %s: expected RSA, or ECDSA on P-256, P-384 or P-521", nameOf(a.oid))
}

// explainNoKey returns the error for a file without a readable private key. The error
// describes the content of the file.
func explainNoKey(data []byte) error {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "OPENSSH PRIVATE KEY":
			return fmt.Errorf("%w: a key in the format of OpenSSH: convert a copy with \"ssh-keygen -p -m PKCS8 -f COPY\"", errNotKey)
		case "DSA PRIVATE KEY", "RSA-PSS PRIVATE KEY":
			return fmt.Errorf("%w: %s: expected RSA, or ECDSA on P-256, P-384 or P-521", ErrKeyKind, block.Type)
		case pemCertificate, pemCSR, "PUBLIC KEY", "RSA PUBLIC KEY":
			return fmt.Errorf("%w: the file holds a %s: expected a PRIVATE KEY", errNotKey, block.Type)
		}
	}
	der := cryptobyte.String(data)
	if der.SkipASN1(cbasn1.SEQUENCE) && der.Empty() {
		return fmt.Errorf("%w: no PEM block; this may be a key in DER, or in PKCS #12: convert a copy with \"openssl pkcs8 -topk8 -v2 aes256 -inform DER -in OLD -out NEW\", or \"openssl pkcs12 -nocerts -in OLD -out NEW\"", errNotKey)
	}
	return fmt.Errorf("%w: no PEM block of a private key", errNotKey)
}
