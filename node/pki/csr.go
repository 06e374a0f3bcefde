package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
)

// CSRKind is the kind of certificate that a certificate signing request is for.
type CSRKind int

const (
	// RootCSR is the request in an info-bundle, for a peer certificate: CA:true,
	// pathlen:0.
	RootCSR CSRKind = iota
	// ServerCSR is a request for a server certificate from the node's own authority.
	ServerCSR
)

// NewCSR makes a certificate signing request for the key, in DER, identical to that of
// the reference's configuration. The requested extensions have no effect, because the
// issuer determines the extensions.
func NewCSR(id Identity, key crypto.Signer, kind CSRKind) ([]byte, error) {
	pub := key.Public()
	algorithm, err := signatureAlgorithm(pub)
	if err != nil {
		return nil, err
	}
	subject, err := id.Subject()
	if err != nil {
		return nil, err
	}
	var extensions []pkix.Extension
	switch kind {
	case RootCSR:
		extensions = []pkix.Extension{basicConstraintsCA(0), keyUsageCA()}
	case ServerCSR:
		extensions = []pkix.Extension{basicConstraintsLeaf(), extKeyUsageServer(), keyUsageServer()}
	default:
		return nil, fmt.Errorf("unknown kind of certificate signing request: %d", int(kind))
	}
	ski, err := subjectKeyID(pub)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		RawSubject:         subject,
		SignatureAlgorithm: algorithm,
		ExtraExtensions:    append(extensions, ski),
	}, derSigner{key})
	if err != nil {
		return nil, fmt.Errorf("signing request for %v: %w", id, err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("signing request for %v: %w", id, err)
	}
	return der, checkCSR(csr)
}

// checkCSR checks that the request is signed with its own key, and that the public key
// may be part of a certificate.
func checkCSR(csr *x509.CertificateRequest) error {
	if err := checkPublicKey(csr.PublicKey); err != nil {
		return fmt.Errorf("certificate signing request: %w", err)
	}
	if err := checkNotZip(csr.RawSubjectPublicKeyInfo); err != nil {
		return fmt.Errorf("certificate signing request: public key: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return fmt.Errorf("certificate signing request: %w: %w", errSignature, err)
	}
	return nil
}
