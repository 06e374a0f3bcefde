package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"testing"
	"time"
)

// One rule determines which keys are strong enough: for the servers of peers in both
// directions, for root certificates, peer certificates and requests, and for the
// node's own keys.
func TestKeyStrength(t *testing.T) {
	p := newPeers(t)
	rsaKey := func(n *big.Int, e int) *rsa.PublicKey { return &rsa.PublicKey{N: n, E: e} }
	good := testRSAKey2().Public().(*rsa.PublicKey).N
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	check(t, err)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	check(t, err)
	ed, edKey, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	weak := weakRSA().(*rsa.PrivateKey)
	bits := func(n uint) *big.Int { return new(big.Int).SetBit(big.NewInt(1), int(n)-1, 1) }
	for _, tt := range []struct {
		what       string
		pub        crypto.PublicKey
		server, ca bool // permitted for a server, for a root
	}{
		{"RSA of 2048 bits", rsaKey(good, 65537), true, true},
		{"RSA of 8192 bits", rsaKey(bits(8192), 65537), true, true},
		{"RSA with the exponent 3", rsaKey(good, 3), true, true},
		{"RSA with the exponent 131071", rsaKey(good, 131071), true, true},
		{"RSA with the exponent 131073", rsaKey(good, 131073), false, false},
		{"P-256", ecKey(7).Public(), true, true},
		{"P-521", p521.Public(), true, true},
		{"Ed25519", ed, true, false},
		{"RSA of 1024 bits", weak.Public(), false, false},
		{"RSA of 2047 bits", rsaKey(bits(2047), 65537), false, false},
		{"RSA of 8193 bits", rsaKey(bits(8193), 65537), false, false},
		{"RSA with the exponent 1", rsaKey(good, 1), false, false},
		{"RSA with an even exponent", rsaKey(good, 65536), false, false},
		{"RSA with an even modulus", rsaKey(new(big.Int).Add(good, big.NewInt(1)), 65537), false, false},
		{"P-224", p224.Public(), false, false},
	} {
		ca := p.ca.Cert.RawSubject
		leaf := certificate{subject: ca, issuer: ca, pub: tt.pub, signer: ecKey(1),
			extensions: []pkix.Extension{basicConstraintsLeaf(), keyUsageServer(), extKeyUsageServer()}}.der(t)
		checkError := func(what string, err error, ok bool) {
			t.Helper()
			if ok && err != nil || !ok && !errors.Is(err, ruleKey) && !errors.Is(err, ErrKeyKind) {
				t.Errorf("%s as %s: got %v", tt.what, what, err)
			}
		}
		_, err := VerifyServer([][]byte{leaf}, p.ca.Cert, p.ca.id, testNow)
		checkError("a server", err, tt.server)
		_, _, err = VerifyClient([][]byte{leaf, p.peerCA.Raw}, p.aa.Cert, testNow)
		checkError("a client", err, tt.server)
		checkError("a root key", checkPublicKey(tt.pub), tt.ca)
	}
	// A weak key that has signed a server's certificate.
	name := p.aa.Cert.RawSubject
	root, err := x509.ParseCertificate(certificate{subject: name, issuer: name, key: weak,
		extensions: []pkix.Extension{caAnyDepth(), keyUsageCA()}}.der(t))
	check(t, err)
	leaf := certificate{subject: name, issuer: name, key: ecKey(3), signer: weak}.der(t)
	if _, err := VerifyServer([][]byte{leaf}, root, p.aa.id, testNow); !errors.Is(err, ruleKey) {
		t.Errorf("under a weak root key: got %v", err)
	}

	for what, key := range map[string]crypto.Signer{"RSA of 1024 bits": weak, "P-224": p224, "Ed25519": edKey} {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: name}, key)
		check(t, err)
		csr, err := x509.ParseCertificateRequest(der)
		check(t, err)
		if _, err := p.aa.SignServer(csr, big.NewInt(1), testNow, time.Hour); !errors.Is(err, ErrKeyKind) {
			t.Errorf("a request with %s: got %v", what, err)
		}
		pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
		check(t, err)
		if _, err := DecodeKey(pem.EncodeToMemory(&pem.Block{Type: pemPKCS8Key, Bytes: pkcs8}), nil); !errors.Is(err, ErrKeyKind) {
			t.Errorf("the node's own key, %s: got %v", what, err)
		}
	}
}
