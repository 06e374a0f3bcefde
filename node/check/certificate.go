package check

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"peerlink/node"
	"peerlink/node/pki"
)

// checkRoot checks a root certificate by the first column of the specification's table, and
// reports whether there is no [Problem]. If there is a problem, package pki also refuses the
// certificates below this one, for which no further finding is added.
func (c *checker) checkRoot(file string, cert *x509.Certificate) (valid bool) {
	before := c.problems
	c.checkForm(file, cert)
	if id, err := pki.IdentityOf(cert.RawSubject); err == nil {
		c.checkEncoding(file, cert, id)
		if err := id.CheckKey(cert.PublicKey); err != nil {
			c.problem(file, RuleDerivedID, "%v: anybody could claim to be this node", err)
		}
	}
	c.checkIssuer(file, cert, cert, "itself")
	renew := "a node keeps its root certificate for ever, so its owner has to make a new node"
	if file == "root-ca.crt" {
		renew = "if the node has just been made, " + node.RemakeRoot
	}
	c.checkDates(file, cert, renew)
	c.checkLongValidity(file, cert)
	c.checkAuthority(file, cert, x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth)
	if cert.BasicConstraintsValid && cert.IsCA && cert.MaxPathLen == 0 {
		c.problem(file, RulePathLen, "basicConstraints with pathlen 0: expected at least 1, or no path length; otherwise the peer certificates that it issues are not valid")
	}
	c.checkSubjectKeyID(file, cert)
	if len(cert.AuthorityKeyId) > 0 && !bytes.Equal(cert.AuthorityKeyId, keyID(cert)) {
		c.problem(file, RuleAuthorityKeyID, "authorityKeyIdentifier of another key: expected none, or SHA-1 of its own public key")
	}
	_, err := pki.CheckRoot(cert, c.now)
	return c.reportRefusal(file, before, err)
}

// checkServer checks a server certificate of this node by the second column of the
// table. It returns true if there is no [Problem], and the root certificate has none. If the
// certificate is not in use, it does not report its dates, and returns false without any check
// if they are not valid now.
func (c *checker) checkServer(file string, cert *x509.Certificate, inUse bool) (valid bool) {
	if !inUse && (c.now.Before(cert.NotBefore) || c.now.After(cert.NotAfter)) {
		return false // expired or not valid yet, so that no peer accepts it
	}
	before := c.problems
	c.checkForm(file, cert)
	if c.root != nil {
		if !bytes.Equal(cert.RawSubject, c.root.RawSubject) {
			c.problem(file, RuleSubject, "the subject is not that of root-ca.crt: expected the same name, byte for byte")
		}
		if sameKey(cert, c.root) {
			c.problem(file, RulePublicKey, "has the root key: expected a key of the server's own; issue a new one with \"peerlink server-cert issue\"")
		}
		c.checkIssuer(file, cert, c.root, "this node's root key")
		c.checkAuthorityKeyID(file, cert, c.root)
	}
	if inUse {
		c.checkDates(file, cert, "\"peerlink server-cert issue\" makes it")
		if days, _ := pki.Expiry(cert.NotAfter, cert.NotBefore); days > closeDays {
			c.warning(file, RuleLifetime, "is valid for %d days: expected about 365, since it can not be revoked if its key is stolen", days)
		}
	}
	if bc := c.extension(file, cert, oidBasicConstraints, "basicConstraints", RuleBasicConstraints, true); bc != nil && cert.IsCA {
		c.problem(file, RuleBasicConstraints, "basicConstraints with CA:true: expected CA:false")
	}
	const usage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	if ku := c.extension(file, cert, oidKeyUsage, "keyUsage", RuleKeyUsage, true); ku != nil && cert.KeyUsage&usage != usage {
		c.problem(file, RuleKeyUsage, "keyUsage without both digitalSignature and keyEncipherment")
	}
	if eku := c.extension(file, cert, oidExtKeyUsage, "extKeyUsage", RuleExtKeyUsage, false); eku != nil &&
		!(slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth) && slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth)) {
		c.problem(file, RuleExtKeyUsage, "extKeyUsage without both clientAuth and serverAuth: each server dials and is dialed")
	}
	c.checkSubjectKeyID(file, cert)
	if !c.rootValid {
		return false
	}
	_, err := pki.VerifyServer([][]byte{cert.Raw}, c.root, c.self, c.now)
	return c.reportRefusal(file, before, err)
}

// checkPeerCertificate checks a peer certificate by the third column of the table. issuer and
// holder are the root certificates of the nodes that issued and received it. rootsValid means
// that both are valid. checkPeerCertificate returns true if they are, and there is no [Problem].
func (c *checker) checkPeerCertificate(file string, cert, issuer, holder *x509.Certificate, rootsValid bool) (valid bool) {
	before := c.problems
	c.checkForm(file, cert)
	if !bytes.Equal(cert.RawSubject, holder.RawSubject) {
		c.problem(file, RuleSubject, "the subject is not that of the root certificate of %s: expected the same name, byte for byte, or no chain can be built", nameOf(holder))
	}
	if !sameKey(cert, holder) {
		c.problem(file, RulePublicKey, "the public key is not the root key of %s", nameOf(holder))
	}
	c.checkIssuer(file, cert, issuer, "the root key of "+nameOf(issuer))
	renew := "sign the peer's info-bundle again (\"peerlink peer sign\"), and send the new certificate to its owner"
	if issuer != c.root {
		renew = "ask its owner to sign this node's info-bundle again, and register the new certificate (\"peerlink peer register\")"
	}
	c.checkDates(file, cert, renew)
	c.checkLongValidity(file, cert)
	c.checkAuthority(file, cert, x509.ExtKeyUsageClientAuth)
	if cert.IsCA && !cert.MaxPathLenZero {
		c.note(file, RulePathLen, "basicConstraints without pathlen 0, which the reference writes: its holder can set up authorities below itself, though in its own name only")
	}
	c.checkSubjectKeyID(file, cert)
	c.checkAuthorityKeyID(file, cert, issuer)
	c.checkNameConstraints(file, cert, holder)
	c.checkComment(file, cert, issuer, holder)
	if !rootsValid {
		return false
	}
	_, err := pki.CheckPeer(cert, issuer, holder, c.now)
	if errors.Is(err, pki.RuleDates) && validForYearsUntil(cert, farYears).Before(c.now) {
		// A certificate that ends soon cannot be registered, but it can still be used.
		_, err = pki.Verify(cert, pki.VerifyOptions{
			Trusted:   []*x509.Certificate{issuer},
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
			Time:      c.now,
		})
	}
	return c.reportRefusal(file, before, err)
}

// reportRefusal adds a finding for err, with which package pki has refused a certificate. It
// adds none if err is nil, or if the number of problems is greater than before: then an earlier
// finding is the reason for the refusal. It reports whether there is no [Problem] since before.
func (c *checker) reportRefusal(file string, before int, err error) bool {
	if err != nil && c.problems == before {
		c.problem(file, RuleRefused, "%v", err)
	}
	return c.problems == before
}

// checkForm checks the properties that do not depend on other certificates.
func (c *checker) checkForm(file string, cert *x509.Certificate) {
	if cert.Version != 3 {
		c.problem(file, RuleVersion, "X.509 version %d: expected 3", cert.Version)
	}
	if cert.SerialNumber.Sign() <= 0 || cert.SerialNumber.BitLen() > 159 {
		c.problem(file, RuleSerial, "serial number %.50s: expected a positive number of at most 20 bytes", cert.SerialNumber)
	}
	if _, err := pki.IdentityOf(cert.RawSubject); err != nil {
		c.problem(file, RuleSubject, "the subject is %v", err)
	}
}

// checkEncoding checks that a name is encoded as the reference would encode it.
func (c *checker) checkEncoding(file string, cert *x509.Certificate, id pki.Identity) {
	if want, err := id.Subject(); err == nil && !bytes.Equal(cert.RawSubject, want) {
		c.note(file, RuleNameEncoding, "the subject is not encoded as the reference does it, with O and OU as UTF8String and serialNumber as PrintableString: every certificate in this name must copy it byte for byte")
	}
}

// checkIssuer checks the issuer's name and signature.
func (c *checker) checkIssuer(file string, cert, issuer *x509.Certificate, whom string) {
	if !bytes.Equal(cert.RawIssuer, issuer.RawSubject) {
		c.problem(file, RuleIssuer, "the issuer's name is not that of %s, byte for byte", nameOf(issuer))
	}
	// Not CheckSignatureFrom, which would check the issuer's extensions too.
	if err := issuer.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		c.problem(file, RuleSignature, "not signed by %s: %v", whom, err)
	}
}

func sameKey(a, b *x509.Certificate) bool {
	return bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo)
}

// nameOf returns a certificate's subject in a readable form.
func nameOf(cert *x509.Certificate) string {
	if id, err := pki.IdentityOf(cert.RawSubject); err == nil {
		return id.String()
	}
	return fmt.Sprintf("%q", firstLine(cert.Subject.String()))
}
