package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"
)

const (
	// The validity of root and peer certificates in days, as in the reference. A
	// time.Duration of this length would overflow.
	foreverDays = 365_000
	// Certificates become valid this long before they are signed, because the clock of
	// a peer that verifies a new certificate may be slow.
	backdating = 5 * time.Minute
	// RFC 5280, section 4.1.2.2: at most 20 octets, as a positive number.
	maxSerialBits = 159
)

// Authority is the certificate authority of a node.
type Authority struct {
	Cert *x509.Certificate // the node's root certificate
	Key  crypto.Signer     // the root key
}

// SelfSign makes the root certificate of a node, which is valid for 365,000 days. The
// ID of an agent must be derived from the key ([DerivedID]). The serial number must be
// positive and have at most 159 bits, as for [Authority.SignServer] and
// [Authority.SignPeer].
func SelfSign(id Identity, key crypto.Signer, serial *big.Int, now time.Time) (*x509.Certificate, error) {
	pub := key.Public()
	if err := id.CheckKey(pub); err != nil {
		return nil, err
	}
	subject, err := id.Subject()
	if err != nil {
		return nil, err
	}
	ski, err := subjectKeyID(pub)
	if err != nil {
		return nil, err
	}
	root, err := sign(&x509.Certificate{
		SerialNumber:    serial,
		RawSubject:      subject,
		NotAfter:        now.UTC().AddDate(0, 0, foreverDays),
		ExtraExtensions: []pkix.Extension{basicConstraintsCA(1), keyUsageCA(), ski},
	}, pub, subject, key, now)
	if err != nil {
		return nil, fmt.Errorf("root certificate of %v: %w", id, err)
	}
	if _, err := CheckRoot(root, now); err != nil {
		return nil, fmt.Errorf("root certificate of %v: self-check: %w", id, err)
	}
	return root, nil
}

// SignServer makes a server certificate for the public key in the request. The request
// must be signed with that key, and its subject must be the node itself. Nothing else in
// the request is used. The key must not be the root key. The certificate is valid from five
// minutes before now until validity after now, which must not be after the end of the root
// certificate; a year is usual.
func (a *Authority) SignServer(csr *x509.CertificateRequest, serial *big.Int, now time.Time, validity time.Duration) (*x509.Certificate, error) {
	self, err := a.check(now)
	if err != nil {
		return nil, err
	}
	if err := checkCSR(csr); err != nil {
		return nil, err
	}
	id, err := IdentityOf(csr.RawSubject)
	switch {
	case err != nil:
		return nil, fmt.Errorf("certificate signing request: %w", err)
	case id != self:
		return nil, fmt.Errorf("certificate signing request of %v: expected one of %v: server certificates are for the node itself only", id, self)
	case sameKey(csr.PublicKey, a.Cert.PublicKey):
		return nil, errors.New("certificate signing request with the root key: a server must have a key of its own")
	case validity <= 0:
		return nil, fmt.Errorf("validity of %v: expected a positive one", validity)
	case now.Add(validity).After(a.Cert.NotAfter):
		return nil, fmt.Errorf("validity of %v: the root certificate itself ends before that, at %v", validity, a.Cert.NotAfter)
	}
	ski, err := subjectKeyID(csr.PublicKey)
	if err != nil {
		return nil, err
	}
	aki, err := authorityKeyID(a.Cert.PublicKey)
	if err != nil {
		return nil, err
	}
	cert, err := sign(&x509.Certificate{
		SerialNumber:    serial,
		RawSubject:      a.Cert.RawSubject,
		NotAfter:        now.Add(validity),
		ExtraExtensions: []pkix.Extension{aki, basicConstraintsLeaf(), extKeyUsageServer(), keyUsageServer(), ski},
	}, csr.PublicKey, a.Cert.RawSubject, a.Key, now)
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	if _, err := VerifyServer([][]byte{cert.Raw}, a.Cert, self, now); err != nil {
		return nil, fmt.Errorf("server certificate: self-check: %w", err)
	}
	return cert, nil
}

// SignPeer makes the peer certificate for the peer with the given root certificate. It
// is valid for 365,000 days. Nodes of the two types must be able to be peers, and the
// subnet must be valid for the types ([CheckSubnet]).
//
// If subnet is "", SignPeer omits the nsComment, whereas the reference writes an
// empty one. The specification defines the nsComment only in certificates from
// accounting authorities.
func (a *Authority) SignPeer(peerRoot *x509.Certificate, subnet string, serial *big.Int, now time.Time) (*x509.Certificate, error) {
	self, err := a.check(now)
	if err != nil {
		return nil, err
	}
	peer, err := CheckRoot(peerRoot, now)
	if err != nil {
		return nil, fmt.Errorf("root certificate of the peer: %w", err)
	}
	// Nodes of the same type cannot be peers, so the first case also refuses the node itself.
	switch {
	case !self.Type.CanPeer(peer.Type):
		return nil, fmt.Errorf("%v and %v can not become peers: one must be an accounting authority, the other an agent", self, peer)
	case sameKey(a.Cert.PublicKey, peerRoot.PublicKey):
		return nil, fmt.Errorf("%v has the same root key as this node", peer)
	}
	if err := CheckSubnet(self, peer, subnet); err != nil {
		return nil, err
	}
	aki, err := authorityKeyID(a.Cert.PublicKey)
	if err != nil {
		return nil, err
	}
	constraint, err := permitOnly(peerRoot.RawSubject)
	if err != nil {
		return nil, err
	}
	ski, err := subjectKeyID(peerRoot.PublicKey)
	if err != nil {
		return nil, err
	}
	extensions := []pkix.Extension{aki, basicConstraintsCA(0), keyUsageCA(), constraint, ski}
	if subnet != "" {
		ext, err := netscapeComment(subnetPrefix + subnet)
		if err != nil {
			return nil, err
		}
		extensions = append(extensions, ext)
	}
	cert, err := sign(&x509.Certificate{
		SerialNumber:    serial,
		RawSubject:      peerRoot.RawSubject,
		NotAfter:        now.UTC().AddDate(0, 0, foreverDays),
		ExtraExtensions: extensions,
	}, peerRoot.PublicKey, a.Cert.RawSubject, a.Key, now)
	if err != nil {
		return nil, fmt.Errorf("peer certificate for %v: %w", peer, err)
	}
	if got, err := CheckPeer(cert, a.Cert, peerRoot, now); err != nil {
		return nil, fmt.Errorf("peer certificate for %v: self-check: %w", peer, err)
	} else if got != subnet {
		return nil, fmt.Errorf("peer certificate for %v: self-check: subnet %q: expected %q", peer, got, subnet)
	}
	return cert, nil
}

// check returns the node's identity, or an error if the authority cannot sign.
func (a *Authority) check(now time.Time) (Identity, error) {
	if a.Cert == nil || a.Key == nil {
		return Identity{}, errors.New("signing needs the root certificate and the root key of this node")
	}
	self, err := CheckRoot(a.Cert, now)
	if err != nil {
		return Identity{}, fmt.Errorf("root certificate of this node: %w", err)
	}
	if !sameKey(a.Key.Public(), a.Cert.PublicKey) {
		return Identity{}, fmt.Errorf("the private key is not that of the root certificate of %v", self)
	}
	return self, nil
}

// sign completes the template, signs it, and parses the result.
func sign(template *x509.Certificate, pub crypto.PublicKey, issuer []byte, key crypto.Signer, now time.Time) (*x509.Certificate, error) {
	algorithm, err := signatureAlgorithm(key.Public())
	if err != nil {
		return nil, err
	}
	if serial := template.SerialNumber; serial == nil || serial.Sign() <= 0 || serial.BitLen() > maxSerialBits {
		return nil, fmt.Errorf("serial number %v: expected a positive number of at most %d bits", serial, maxSerialBits)
	}
	template.SignatureAlgorithm = algorithm
	template.NotBefore = now.Add(-backdating)
	parent := &x509.Certificate{RawSubject: issuer, PublicKey: key.Public()}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, derSigner{key})
	if err != nil {
		return nil, err
	}
	cert, err := ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(cert.RawSubject, template.RawSubject) || !bytes.Equal(cert.RawIssuer, issuer) || !sameKey(cert.PublicKey, pub) {
		return nil, errors.New("self-check: the certificate does not have the subject, issuer and key that it was given")
	}
	return cert, nil
}

// signatureAlgorithm returns the algorithm for a key. The hash is always SHA-256, also
// for P-384, because of the reference's default_md.
func signatureAlgorithm(pub crypto.PublicKey) (x509.SignatureAlgorithm, error) {
	if err := checkPublicKey(pub); err != nil {
		return 0, err
	}
	switch pub.(type) {
	case *rsa.PublicKey:
		return x509.SHA256WithRSA, nil
	case *ecdsa.PublicKey:
		return x509.ECDSAWithSHA256, nil
	}
	return 0, ErrKeyKind
}

// SerialHex formats a serial number of a certificate as OpenSSL does: upper-case hex, an even number of
// digits.
func SerialHex(n *big.Int) string {
	s := fmt.Sprintf("%X", n)
	if len(s)%2 == 1 {
		s = "0" + s
	}
	return s
}
