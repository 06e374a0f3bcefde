package pki

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"peerlink/node/nodetype"
)

// ParseCertificatePEM accepts a file with one certificate in the forms in which the
// usual tools write it. It refuses files in which another program could find another
// certificate.
func TestParseCertificatePEM(t *testing.T) {
	node := newNode(t, nodetype.AccountingAuthority, "1234abcd", ecKey(0))
	plain := EncodeCertificatePEM(node.Cert)
	dir := t.TempDir()
	writeFile(t, dir, "c.pem", plain)
	withText := []byte(mustOpenSSL(t, dir, "x509", "-in", "c.pem", "-text"))
	for what, data := range map[string][]byte{
		"plain":           plain,
		"with a dump":     withText,
		"CRLF":            bytes.ReplaceAll(withText, []byte("\n"), []byte("\r\n")),
		"no last newline": bytes.TrimSpace(plain),
		"empty lines":     append(plain[:len(plain):len(plain)], "\n \r\n"...),
	} {
		cert, err := ParseCertificatePEM(data)
		if err != nil || !cert.Equal(node.Cert) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	full := append(bytes.Repeat([]byte("\n"), maxFile-len(plain)), plain...)
	if _, err := ParseCertificatePEM(full); err != nil {
		t.Errorf("a file of %d bytes: %v", len(full), err)
	}
	text := string(plain)
	for what, data := range map[string]string{
		"nothing":                    "",
		"two":                        text + text,
		"two of which one is broken": "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n" + text,
		"another kind before":        strings.ReplaceAll(text, "CERTIFICATE", "X509 CERTIFICATE") + text,
		"another kind":               strings.ReplaceAll(text, "CERTIFICATE", "TRUSTED CERTIFICATE"),
		"headers":                    strings.Replace(text, "-----\n", "-----\nA: b\n\n", 1),
		"text after it":              text + "more",
		"cut off":                    text[:len(text)/2],
		"not a certificate":          "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"trailing DER":               string(certPEM(append(node.Cert.Raw[:len(node.Cert.Raw):len(node.Cert.Raw)], 0))),
		"huge":                       strings.Repeat("x", maxFile) + text,
		"a request":                  string(EncodeCSRPEM([]byte("x"))),
	} {
		if _, err := ParseCertificatePEM([]byte(data)); !errors.Is(err, ErrPEM) {
			t.Errorf("%s: got %v, want ErrPEM", what, err)
		}
	}
}

// ParseCSRPEM accepts a request only with a valid signature by its key, which
// OpenSSL verifies too.
func TestParseCSRPEM(t *testing.T) {
	id := Identity{nodetype.AccountingAuthority, "1234abcd"}
	for _, kind := range []CSRKind{RootCSR, ServerCSR} {
		der, err := NewCSR(id, ecKey(0), kind)
		check(t, err)
		data := EncodeCSRPEM(der)
		csr, err := ParseCSRPEM(data)
		check(t, err)
		if got, err := IdentityOf(csr.RawSubject); err != nil || got != id {
			t.Errorf("got %v, %v, want %v", got, err, id)
		}
		dir := t.TempDir()
		writeFile(t, dir, "r.pem", data)
		mustOpenSSL(t, dir, "req", "-in", "r.pem", "-verify", "-noout")

		der[len(der)-1] ^= 1 // in the signature
		if _, err := ParseCSRPEM(EncodeCSRPEM(der)); !errors.Is(err, errSignature) {
			t.Errorf("got %v, want ErrSignature", err)
		}
		if _, err := ParseCSRPEM(EncodeCSRPEM(der[:len(der)-1])); !errors.Is(err, ErrPEM) {
			t.Errorf("got %v, want ErrPEM", err)
		}
	}
	if _, err := NewCSR(id, ecKey(0), 7); err == nil {
		t.Error("NewCSR accepts an unknown kind")
	}
}
