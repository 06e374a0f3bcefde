package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
)

// CSRKind is what a certificate signing request asks for.
type CSRKind int

const (
	// RootCSR is the request in an info-bundle, which asks a peer for a peer
	// certificate: CA:true, pathlen:0.
	RootCSR CSRKind = iota
	// ServerCSR asks the node's own authority for a server certificate.
	ServerCSR
)

// NewCSR makes a certificate signing request for the key, in DER, just as the
// reference's configuration has it. What it asks for is a matter of form: those
// who sign decide on the extensions by themselves.
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
	}, key)
	if err != nil {
		return nil, fmt.Errorf("signing request for %v: %w", id, err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("signing request for %v: %w", id, err)
	}
	if err := checkDER(csr.RawTBSCertificateRequest); err != nil {
		return nil, fmt.Errorf("signing request for %v: %w", id, err)
	}
	return der, checkCSR(csr)
}

// checkCSR checks that who made the request has the private key, and that the public
// key can go into a certificate.
func checkCSR(csr *x509.CertificateRequest) error {
	if err := checkPublicKey(csr.PublicKey); err != nil {
		return fmt.Errorf("certificate signing request: %w", err)
	}
	if err := checkDER(csr.RawSubjectPublicKeyInfo); err != nil {
		return fmt.Errorf("certificate signing request: public key: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return fmt.Errorf("certificate signing request: %w: %w", ErrSignature, err)
	}
	return nil
}
