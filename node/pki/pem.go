package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"peerlink/internal/textfile"
)

const (
	pemCertificate = "CERTIFICATE"
	pemCSR         = "CERTIFICATE REQUEST"
)

// ErrPEM is wrapped by the errors for files that do not conform to the rules of
// [ParseCertificatePEM] and [ParseCSRPEM].
var ErrPEM = errors.New("unexpected content of a PEM file")

// ParseCertificatePEM parses the content of a file with exactly one certificate. The file
// may begin with a human-readable dump, like files of "openssl ca", and may have CRLF line
// ends. Errors wrap [ErrPEM].
//
// A byte order mark, times in wrong forms ([ErrTimes]), other PEM blocks, and text after the
// certificate are refused, so that all programs that read the file use the same certificate.
func ParseCertificatePEM(data []byte) (*x509.Certificate, error) {
	der, err := onlyBlock(data, pemCertificate)
	if err != nil {
		return nil, err
	}
	cert, err := ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPEM, err)
	}
	return cert, nil
}

// EncodeCertificatePEM returns a certificate in PEM.
func EncodeCertificatePEM(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: cert.Raw})
}

// ParseCSRPEM parses the content of a file with exactly one certificate signing request,
// under the same rules as [ParseCertificatePEM], and checks that the request is signed
// with the key in it. Errors about the file wrap [ErrPEM].
func ParseCSRPEM(data []byte) (*x509.CertificateRequest, error) {
	der, err := onlyBlock(data, pemCSR)
	if err != nil {
		return nil, err
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPEM, err)
	}
	if err := checkCSR(csr); err != nil {
		return nil, err
	}
	return csr, nil
}

// EncodeCSRPEM returns a certificate signing request, as returned by [NewCSR], in PEM.
func EncodeCSRPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCSR, Bytes: der})
}

// onlyBlock returns the content of the file's only PEM block.
func onlyBlock(data []byte, pemType string) ([]byte, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("%w: %d bytes: expected at most %d", ErrPEM, len(data), maxFile)
	}
	if textfile.HasMark(data) {
		return nil, fmt.Errorf("%w: it begins with a byte order mark, which OpenSSL does not read: save the file as UTF-8 without a byte order mark", ErrPEM)
	}
	// Count the blocks in the text, because pem.Decode skips malformed blocks, which
	// another program may be able to read.
	if n := bytes.Count(data, []byte("-----BEGIN ")); n != 1 {
		return nil, fmt.Errorf("%w: %d PEM blocks: expected exactly one, %s", ErrPEM, n, pemType)
	}
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return nil, fmt.Errorf("%w: malformed PEM block", ErrPEM)
	case block.Type != pemType:
		return nil, fmt.Errorf("%w: %s: expected %s", ErrPEM, clip(block.Type), pemType)
	case len(block.Headers) != 0:
		return nil, fmt.Errorf("%w: PEM block with headers", ErrPEM)
	case len(bytes.TrimSpace(rest)) != 0:
		return nil, fmt.Errorf("%w: text after the PEM block", ErrPEM)
	}
	return block.Bytes, nil
}
