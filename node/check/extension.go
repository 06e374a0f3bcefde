package check

import (
	"bytes"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

var (
	oidSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidNameConstraints  = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidAuthorityKeyID   = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidNetscapeComment  = asn1.ObjectIdentifier{2, 16, 840, 1, 113730, 1, 13}
)

// checkAuthority checks the extensions that root and peer certificates have in common.
// below are the purposes for which the certificates below this one are used.
func (c *checker) checkAuthority(file string, cert *x509.Certificate, below ...x509.ExtKeyUsage) {
	if bc := c.extension(file, cert, oidBasicConstraints, "basicConstraints", RuleBasicConstraints, true); bc != nil && !cert.IsCA {
		c.problem(file, RuleBasicConstraints, "basicConstraints with CA:false: expected CA:true")
	}
	if ku := c.extension(file, cert, oidKeyUsage, "keyUsage", RuleKeyUsage, true); ku != nil && cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		c.problem(file, RuleKeyUsage, "keyUsage without keyCertSign")
	}
	// If an authority has this extension, the certificates below it may be used for
	// the listed purposes only. Some existing certificates list both, which is harmless.
	if findExtension(cert, oidExtKeyUsage) == nil || slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return
	}
	for _, usage := range below {
		if !slices.Contains(cert.ExtKeyUsage, usage) {
			c.problem(file, RuleExtKeyUsage, "extKeyUsage without all of the purposes of server certificates: expected no such extension, because the certificates below this one are refused otherwise")
			return
		}
	}
}

func (c *checker) checkSubjectKeyID(file string, cert *x509.Certificate) {
	if ext := c.extension(file, cert, oidSubjectKeyID, "subjectKeyIdentifier", RuleSubjectKeyID, false); ext != nil && !bytes.Equal(cert.SubjectKeyId, keyID(cert)) {
		c.problem(file, RuleSubjectKeyID, "subjectKeyIdentifier %X: expected SHA-1 of the public key, %X", cert.SubjectKeyId, keyID(cert))
	}
}

func (c *checker) checkAuthorityKeyID(file string, cert, issuer *x509.Certificate) {
	if ext := c.extension(file, cert, oidAuthorityKeyID, "authorityKeyIdentifier", RuleAuthorityKeyID, false); ext != nil && !bytes.Equal(cert.AuthorityKeyId, keyID(issuer)) {
		c.problem(file, RuleAuthorityKeyID, "authorityKeyIdentifier %X: expected SHA-1 of the issuer's public key, %X", cert.AuthorityKeyId, keyID(issuer))
	}
}

// checkNameConstraints checks that the certificate permits exactly the complete name
// of its holder. All authentication of peers depends on this constraint.
func (c *checker) checkNameConstraints(file string, cert, holder *x509.Certificate) {
	ext := c.extension(file, cert, oidNameConstraints, "nameConstraints", RuleNameConstraints, true)
	if ext == nil {
		return
	}
	names, err := permittedNames(ext.Value)
	if err != nil {
		c.problem(file, RuleNameConstraints, "nameConstraints not understood: %v", err)
		return
	}
	own, ownErr := pki.IdentityOf(holder.RawSubject)
	for _, name := range names {
		if id, err := pki.IdentityOf(name); err != nil || ownErr == nil && id != own {
			c.problem(file, RuleNameConstraints, "nameConstraints permit a name that is not the full O, OU and serialNumber of %s: its holder could sign certificates in the names of others", nameOf(holder))
			return
		}
	}
	if len(names) == 0 {
		c.problem(file, RuleNameConstraints, "nameConstraints permit no directoryName: expected the O, OU and serialNumber of %s", nameOf(holder))
	}
}

// permittedNames returns the directory names, in DER, that a nameConstraints
// extension (RFC 5280, section 4.2.1.10) permits.
func permittedNames(der []byte) ([][]byte, error) {
	s := cryptobyte.String(der)
	var seq, permitted cryptobyte.String
	var ok bool
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() ||
		!seq.ReadOptionalASN1(&permitted, &ok, cbasn1.Tag(0).ContextSpecific().Constructed()) {
		return nil, errors.New("malformed")
	}
	var names [][]byte
	for !permitted.Empty() {
		var subtree, name cryptobyte.String
		var tag cbasn1.Tag
		if !permitted.ReadASN1(&subtree, cbasn1.SEQUENCE) || !subtree.ReadAnyASN1(&name, &tag) {
			return nil, errors.New("malformed subtree")
		}
		if tag == cbasn1.Tag(4).ContextSpecific().Constructed() { // directoryName
			names = append(names, name)
		}
	}
	return names, nil
}

// checkComment checks the subnet in a peer certificate.
func (c *checker) checkComment(file string, cert, issuer, holder *x509.Certificate) {
	from, err1 := pki.IdentityOf(issuer.RawSubject)
	to, err2 := pki.IdentityOf(holder.RawSubject)
	if err1 != nil || err2 != nil {
		return
	}
	subnet, ok, err := pki.SubnetComment(cert)
	switch {
	case from.Type != nodetype.AccountingAuthority:
		if ok || err != nil {
			c.note(file, RuleComment, "a subnet in the nsComment, which means nothing: %v is no accounting authority", from)
		}
		return
	case err != nil:
		c.problem(file, RuleComment, "%v", err)
		return
	case !ok:
		c.problem(file, RuleComment, "no nsComment with the subnet: expected one, since %v is an accounting authority", from)
		return
	}
	if err := pki.CheckSubnet(from, to, subnet); err != nil {
		c.problem(file, RuleComment, "%v", err)
	}
	if ext := findExtension(cert, oidNetscapeComment); ext.Critical {
		c.problem(file, RuleComment, "nsComment is critical: expected a non-critical extension")
	}
}

// extension returns a required extension, or nil if it is missing. It adds a finding if the
// extension is missing, or if it is critical but should not be, or the reverse.
func (c *checker) extension(file string, cert *x509.Certificate, oid asn1.ObjectIdentifier, name string, rule Rule, critical bool) *pkix.Extension {
	ext := findExtension(cert, oid)
	switch {
	case ext == nil:
		c.problem(file, rule, "no %s: expected this extension", name)
	case ext.Critical && !critical:
		c.problem(file, rule, "%s is critical: expected a non-critical extension", name)
	case !ext.Critical && critical:
		c.problem(file, rule, "%s is not critical: expected a critical extension", name)
	}
	return ext
}

func findExtension(cert *x509.Certificate, oid asn1.ObjectIdentifier) *pkix.Extension {
	i := slices.IndexFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oid) })
	if i < 0 {
		return nil
	}
	return &cert.Extensions[i]
}

// keyID returns the SHA-1 hash of the content of the BIT STRING in
// SubjectPublicKeyInfo (RFC 5280, section 4.2.1.2, method 1).
func keyID(cert *x509.Certificate) []byte {
	s := cryptobyte.String(cert.RawSubjectPublicKeyInfo)
	var spki cryptobyte.String
	var bits []byte
	if !s.ReadASN1(&spki, cbasn1.SEQUENCE) || !spki.SkipASN1(cbasn1.SEQUENCE) || !spki.ReadASN1BitStringAsBytes(&bits) {
		return nil // impossible in a certificate that crypto/x509 has parsed
	}
	sum := sha1.Sum(bits)
	return sum[:]
}
