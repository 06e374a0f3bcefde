package pki

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"time"
)

// minPeerYears is the number of years that a peer certificate must still be valid, as in
// the reference.
const minPeerYears = 500

// CheckRoot checks that a certificate is the root certificate of a node, and returns
// the node's identity: the certificate must be self-signed, valid now, with the name of a
// node as its subject, and able to sign peer certificates ("Swaptacular SSL/TLS
// Certificates", section "Root certificates"). The ID of an agent must be derived from
// the key. CheckRoot does not prove who made the certificate. The error is a
// [*VerifyError].
func CheckRoot(cert *x509.Certificate, now time.Time) (Identity, error) {
	fail := func(rule Rule, detail string) (Identity, error) {
		return Identity{}, &VerifyError{Rule: rule, Cert: cert, Detail: detail}
	}
	id, err := IdentityOf(cert.RawSubject)
	if err != nil {
		return Identity{}, &VerifyError{Rule: ruleSubject, Cert: cert, Detail: "subject", Err: err}
	}
	if !bytes.Equal(cert.RawIssuer, cert.RawSubject) {
		return fail(ruleIssuer, "issued by somebody else: expected a self-signed certificate")
	}
	if err := checkPublicKey(cert.PublicKey); err != nil {
		return Identity{}, &VerifyError{Rule: ruleKey, Cert: cert, Detail: "public key", Err: err}
	}
	// Checked because the key becomes part of a peer certificate.
	if err := checkNotZip(cert.RawSubjectPublicKeyInfo); err != nil {
		return Identity{}, &VerifyError{Rule: ruleKey, Cert: cert, Detail: "public key", Err: err}
	}
	if err := id.CheckKey(cert.PublicKey); err != nil {
		return Identity{}, &VerifyError{Rule: ruleSubject, Cert: cert, Detail: "subject", Err: err}
	}
	if err := checkCA(cert); err != nil {
		return Identity{}, err
	}
	if cert.MaxPathLen == 0 {
		return fail(rulePathLen, "basicConstraints with pathlen 0: expected at least 1, or none")
	}
	// Verify does not check the signature of a trusted certificate.
	if err := cert.CheckSignatureFrom(cert); err != nil {
		return Identity{}, &VerifyError{Rule: ruleIssuer, Cert: cert, Detail: "its own signature", Err: err}
	}
	if _, err := Verify(cert, VerifyOptions{Trusted: []*x509.Certificate{cert}, Time: now}); err != nil {
		return Identity{}, err
	}
	return id, nil
}

// CheckPeer checks that a certificate is a peer certificate that the node with the root
// certificate issuerRoot has issued to the holder, the node with holderRoot. The
// certificate must have the holder's exact name and key, be able to sign the holder's
// server certificates, be valid for at least 500 more years, and have a subnet that is
// valid for the node types ([CheckSubnet]). CheckPeer returns the subnet, or "" if the issuer
// is an agent. The error is a [*VerifyError], unless the subnet is invalid.
func CheckPeer(cert, issuerRoot, holderRoot *x509.Certificate, now time.Time) (subnet string, err error) {
	fail := func(rule Rule, detail string) (string, error) {
		return "", &VerifyError{Rule: rule, Cert: cert, Detail: detail}
	}
	issuer, err := CheckRoot(issuerRoot, now)
	if err != nil {
		return "", err
	}
	holder, err := CheckRoot(holderRoot, now)
	if err != nil {
		return "", err
	}
	switch {
	case !bytes.Equal(cert.RawSubject, holderRoot.RawSubject):
		return fail(ruleSubject, fmt.Sprintf("expected a certificate for %v, with the subject byte for byte as in its root certificate", holder))
	case !sameKey(cert.PublicKey, holderRoot.PublicKey):
		return fail(ruleSubject, fmt.Sprintf("the public key is not the root key of %v", holder))
	case !bytes.Equal(cert.RawIssuer, issuerRoot.RawSubject):
		return fail(ruleIssuer, fmt.Sprintf("expected a certificate issued by %v", issuer))
	case cert.NotAfter.Year() < now.UTC().Year()+minPeerYears:
		return fail(RuleDates, fmt.Sprintf("ends in the year %d: expected at least %d years from now", cert.NotAfter.Year(), minPeerYears))
	}
	if err := checkCA(cert); err != nil {
		return "", err
	}
	if _, err := Verify(cert, VerifyOptions{
		Trusted:   []*x509.Certificate{issuerRoot},
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		Time:      now,
	}); err != nil {
		return "", err
	}
	if err := checkHolderPermitted(cert); err != nil {
		return "", err
	}
	subnet, _, err = SubnetComment(cert)
	if err != nil {
		return "", err
	}
	// A subnet from an agent has no meaning; the reference ignores it.
	if issuer.Type.IDDerived() {
		return "", nil
	}
	return subnet, CheckSubnet(issuer, holder, subnet)
}

// checkHolderPermitted checks that the certificate has name constraints, and that these let
// the holder sign certificates in its own name. They may permit other names too.
func checkHolderPermitted(cert *x509.Certificate) error {
	names, err := namesOf(cert)
	if err != nil {
		return &VerifyError{Rule: ruleNameConstraints, Cert: cert, Detail: "names", Err: err}
	}
	if names.constraints == nil {
		return &VerifyError{Rule: ruleNameConstraints, Cert: cert, Detail: "expected a nameConstraints extension that permits the peer's own name"}
	}
	if err := names.constraints.check(names); err != nil {
		return &VerifyError{Rule: ruleNameConstraints, Cert: cert, Detail: "the holder can not sign in its own name", Err: err}
	}
	return nil
}

// checkCA checks the properties that root and peer certificates have in common.
func checkCA(cert *x509.Certificate) error {
	bc := findExtension(cert, oidBasicConstraints)
	if bc == nil || !bc.Critical || !cert.IsCA {
		return &VerifyError{Rule: ruleCA, Cert: cert, Detail: "expected critical basicConstraints with CA:true"}
	}
	if cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return &VerifyError{Rule: ruleCA, Cert: cert, Detail: "expected keyUsage with keyCertSign"}
	}
	return nil
}
