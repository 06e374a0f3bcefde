package pki

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Limits on the certificates that unauthenticated parties present, checked before any
// expensive operation.
const (
	maxCertificates = 10       // the leaf and the other presented certificates
	maxChainBytes   = 64 << 10 // all of them together, in DER
	maxNames        = 512      // names and subtrees, in all certificates together
)

// Rule is a rule for certificates and chains. A Rule is an error, so that
// errors.Is(err, RuleDates) reports whether that rule was broken.
type Rule string

// Error returns the text of the rule.
func (r Rule) Error() string { return string(r) }

// The rules.
const (
	// ruleLimit: at most 10 presented certificates with 64 KiB in all, and 512 names in
	// presented and trusted certificates.
	ruleLimit Rule = "too many certificates, bytes or names"
	// ruleFormat: certificates and the names in them can be parsed.
	ruleFormat Rule = "malformed certificate"
	// ruleKey: a public key of a kind and size that is supported.
	ruleKey Rule = "public key not acceptable"
	// ruleIssuer: signatures that lead to a trusted certificate, or to itself for a root
	// certificate. Errors of crypto/x509 that fit no other rule are reported as this one.
	ruleIssuer Rule = "not issued by a trusted certificate"
	// RuleDates: valid at the time of checking.
	RuleDates Rule = "not valid at this time"
	// ruleCA: issuers are certificate authorities, and server certificates are not.
	ruleCA Rule = "wrong basicConstraints or keyUsage"
	// rulePathLen: no more certificates below an issuer than its path length allows.
	rulePathLen Rule = "path length exceeded"
	// ruleKeyUsage: keyUsage and extKeyUsage allow the use of the key.
	ruleKeyUsage Rule = "incompatible key usage"
	// ruleNameConstraints: names permitted by the constraints of all issuers in the
	// chain, and no unsupported constraints.
	ruleNameConstraints Rule = "name constraints"
	// ruleCriticalExtension: no unsupported critical extension.
	ruleCriticalExtension Rule = "unhandled critical extension"
	// rulePolicy: no constraints on certificate policies, which Swaptacular does not
	// use.
	rulePolicy Rule = "invalid certificate policies"
	// ruleSubject: the expected name and key.
	ruleSubject Rule = "not the expected subject"
	// ruleChain: a chain as required by [VerifyServer] or [VerifyClient].
	ruleChain Rule = "not a chain of certificates that a node has"
)

// VerifyError is the error for a refused certificate or chain.
type VerifyError struct {
	Rule Rule // the rule that was broken
	// Cert is the certificate that breaks the rule, or the leaf if it is not known which one
	// does. It is nil if a certificate cannot be parsed, or if there are none or too many.
	Cert   *x509.Certificate
	Detail string // what was wrong, or the context of Err
	Err    error  // the cause, or nil
}

func (e *VerifyError) Error() string {
	s := "certificate refused: " + string(e.Rule)
	if e.Cert != nil {
		subject := "of an unreadable subject"
		if id, err := IdentityOf(e.Cert.RawSubject); err == nil {
			subject = "of " + id.String()
		} else if n, err := parseName(e.Cert.RawSubject); err == nil {
			subject = "of " + n.String()
		}
		s = "certificate " + subject + " refused: " + string(e.Rule)
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil {
		s += ": " + clipText(e.Err.Error()) // errors of crypto/x509 quote from certificates
	}
	return s
}

// Unwrap returns the rule and the cause.
func (e *VerifyError) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Rule}
	}
	return []error{e.Rule, e.Err}
}

// VerifyOptions are the parameters of [Verify].
type VerifyOptions struct {
	// Trusted are the certificates at which a chain may end, self-signed or not. Their
	// dates, path lengths and name constraints are checked too.
	Trusted []*x509.Certificate
	// Untrusted are the certificates that may be used as intermediates.
	Untrusted []*x509.Certificate
	// KeyUsages are the extended key usages of which the chain must allow at least one.
	// Empty means that any usage is acceptable.
	KeyUsages []x509.ExtKeyUsage
	// Time is the time at which the chain must be valid. Zero means the current time.
	Time time.Time
}

// Verify builds and verifies a chain from a certificate to a trusted one according to RFC
// 5280, section 6.1, without revocation, and returns the chain, with leaf first. It is not
// specific to Swaptacular; the differences from the RFC are in the package comment. Verify
// fails if any certificate in the options has malformed names, unsupported name constraints,
// or an RSA key of more than 8192 bits, even if no chain needs it. Otherwise it does not check
// the strength of keys. The error is a [*VerifyError].
func Verify(leaf *x509.Certificate, o VerifyOptions) ([]*x509.Certificate, error) {
	chains, err := verify(leaf, o, func(*x509.Certificate) bool { return true })
	if err != nil {
		return nil, err
	}
	return chains[0], nil
}

// verify returns all valid chains, at least one if there is no error. It uses an
// untrusted certificate, and its key, only if mayIssue returns true for it.
func verify(leaf *x509.Certificate, o VerifyOptions, mayIssue func(*x509.Certificate) bool) ([][]*x509.Certificate, error) {
	if o.Time.IsZero() {
		o.Time = time.Now()
	}
	presented := append([]*x509.Certificate{leaf}, o.Untrusted...)
	if err := checkSize(presented, func(c *x509.Certificate) int { return len(c.Raw) }); err != nil {
		return nil, err
	}
	known := make(candidates)
	for _, cert := range slices.Concat(presented, o.Trusted) {
		if err := known.add(cert); err != nil {
			return nil, err
		}
	}
	var issuers []*x509.Certificate
	for _, cert := range o.Untrusted {
		if mayIssue(cert) {
			issuers = append(issuers, cert)
		}
	}
	pool := func(certs []*x509.Certificate) *x509.CertPool {
		p := x509.NewCertPool()
		for _, cert := range certs {
			p.AddCert(known.get(cert).stripped)
		}
		return p
	}
	usages := o.KeyUsages
	if len(usages) == 0 {
		usages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	}
	built, err := known.get(leaf).stripped.Verify(x509.VerifyOptions{
		Roots:         pool(o.Trusted),
		Intermediates: pool(issuers),
		KeyUsages:     usages,
		CurrentTime:   o.Time,
	})
	if err != nil {
		return nil, known.explainError(err, leaf, slices.Concat(issuers, o.Trusted), o.Time)
	}
	var valid [][]*x509.Certificate
	var refused error
	for _, chain := range built {
		chain, err := known.check(chain)
		if err == nil {
			valid = append(valid, chain)
		} else if refused == nil {
			refused = err
		}
	}
	if len(valid) == 0 {
		return nil, refused
	}
	return valid, nil
}

// checkSize checks the number and the total size of the presented certificates, parsed or
// not.
func checkSize[T any](presented []T, size func(T) int) error {
	if len(presented) > maxCertificates {
		return &VerifyError{Rule: ruleLimit, Detail: fmt.Sprintf("%d certificates: expected at most %d", len(presented), maxCertificates)}
	}
	total := 0
	for _, cert := range presented {
		total += size(cert)
	}
	if total > maxChainBytes {
		return &VerifyError{Rule: ruleLimit, Detail: fmt.Sprintf("%d bytes of certificates: expected at most %d", total, maxChainBytes)}
	}
	return nil
}

// candidates are the certificates from which chains are built, by their DER.
type candidates map[string]*candidate

type candidate struct {
	original *x509.Certificate
	// stripped is a copy without the critical extensions that this package enforces
	// instead of crypto/x509.
	stripped *x509.Certificate
	names    *certNames
}

func (c candidates) get(cert *x509.Certificate) *candidate { return c[string(cert.Raw)] }

func (c candidates) add(cert *x509.Certificate) error {
	if c.get(cert) != nil {
		return nil
	}
	if pub, ok := cert.PublicKey.(*rsa.PublicKey); ok && pub.N.BitLen() > maxRSABits {
		return &VerifyError{Rule: ruleKey, Cert: cert, Err: checkPublicKey(pub)}
	}
	if err := checkTimes(cert); err != nil {
		return &VerifyError{Rule: ruleFormat, Cert: cert, Err: err}
	}
	names, err := namesOf(cert)
	switch {
	case errors.Is(err, errConstraints):
		return &VerifyError{Rule: ruleNameConstraints, Cert: cert, Err: err}
	case err != nil:
		return &VerifyError{Rule: ruleFormat, Cert: cert, Err: err}
	}
	stripped := *cert
	stripped.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(cert.UnhandledCriticalExtensions), names.enforces)
	c[string(cert.Raw)] = &candidate{original: cert, stripped: &stripped, names: names}

	total := 0
	for _, known := range c {
		total += known.names.size()
	}
	if total > maxNames {
		return &VerifyError{Rule: ruleLimit, Cert: cert, Detail: fmt.Sprintf("%d names and subtrees: expected at most %d", total, maxNames)}
	}
	return nil
}

// enforces reports whether this package completely enforces an extension that
// crypto/x509 does not handle.
func (c *certNames) enforces(oid asn1.ObjectIdentifier) bool {
	switch {
	case oid.Equal(oidNameConstraints):
		return c.constraints != nil
	case oid.Equal(oidSubjectAltName):
		return !slices.ContainsFunc(c.alt, func(g generalName) bool { return g.tag != tagDirectoryName })
	}
	return false
}

// check does the checks of a chain that crypto/x509 does not do. It returns the chain with
// the original certificates instead of the stripped ones.
func (c candidates) check(chain []*x509.Certificate) ([]*x509.Certificate, error) {
	originals := make([]*x509.Certificate, len(chain))
	names := make([]*certNames, len(chain))
	for i, cert := range chain {
		known := c.get(cert)
		originals[i], names[i] = known.original, known.names
		// crypto/x509 accepts a keyUsage extension without any bit.
		if i > 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0 && findExtension(cert, oidKeyUsage) != nil {
			return nil, &VerifyError{Rule: ruleCA, Cert: known.original, Detail: "expected keyUsage with keyCertSign"}
		}
	}
	if at, err := checkConstraints(names); err != nil {
		return nil, &VerifyError{Rule: ruleNameConstraints, Cert: originals[at], Err: err}
	}
	return originals, nil
}

// explainError converts an error of crypto/x509 to a [VerifyError] with the broken rule and, if
// possible, the certificate that breaks it.
func (c candidates) explainError(err error, leaf *x509.Certificate, issuers []*x509.Certificate, now time.Time) error {
	e := &VerifyError{Rule: ruleIssuer, Cert: leaf, Err: err}
	var invalid x509.CertificateInvalidError
	if !errors.As(err, &invalid) {
		// The error does not contain the certificate, and for intermediates it may
		// only mean that none was usable.
		if len(c.get(leaf).stripped.UnhandledCriticalExtensions) > 0 {
			e.Rule = ruleCriticalExtension
		} else if rule, cert := c.findBrokenIssuer(leaf, issuers, now); cert != nil {
			e.Rule, e.Cert = rule, cert
		}
		return e
	}
	if invalid.Cert != nil && c.get(invalid.Cert) != nil {
		e.Cert = c.get(invalid.Cert).original
	}
	switch invalid.Reason {
	case x509.Expired:
		e.Rule = RuleDates
	case x509.NotAuthorizedToSign:
		e.Rule = ruleCA
	case x509.TooManyIntermediates:
		e.Rule = rulePathLen
	case x509.IncompatibleUsage, x509.CANotAuthorizedForExtKeyUsage:
		e.Rule = ruleKeyUsage
	case x509.CANotAuthorizedForThisName, x509.UnconstrainedName, x509.TooManyConstraints:
		e.Rule = ruleNameConstraints
	case x509.NoValidChains:
		e.Rule = rulePolicy
	}
	return e
}

// findBrokenIssuer follows the signatures from the leaf upwards, and returns the first issuer
// that breaks a rule by itself, and the rule; nil if it finds none. It is only for the error
// message; the chain has been refused already.
func (c candidates) findBrokenIssuer(leaf *x509.Certificate, issuers []*x509.Certificate, now time.Time) (Rule, *x509.Certificate) {
	child := leaf
	for range maxCertificates {
		at := slices.IndexFunc(issuers, func(cert *x509.Certificate) bool {
			return bytes.Equal(cert.RawSubject, child.RawIssuer) && !bytes.Equal(cert.Raw, child.Raw) &&
				cert.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature) == nil
		})
		if at < 0 {
			return "", nil
		}
		issuer := issuers[at]
		switch {
		case now.Before(issuer.NotBefore) || now.After(issuer.NotAfter):
			return RuleDates, issuer
		case !issuer.IsCA || findExtension(issuer, oidKeyUsage) != nil && issuer.KeyUsage&x509.KeyUsageCertSign == 0:
			return ruleCA, issuer
		case len(c.get(issuer).stripped.UnhandledCriticalExtensions) > 0:
			return ruleCriticalExtension, issuer
		}
		child = issuer
	}
	return "", nil
}
