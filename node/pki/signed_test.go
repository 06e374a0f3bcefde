package pki

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"testing"
	"time"

	"peerlink/node/nodetype"
)

// hidingKey makes an RSA key of 2048 bits whose modulus begins with the given bytes.
func hidingKey(t testing.TB, hidden []byte) *rsa.PrivateKey {
	t.Helper()
	one, e := big.NewInt(1), big.NewInt(65537)
	modulus := new(big.Int).SetBytes(append(bytes.Clone(hidden), make([]byte, 256-len(hidden))...))
	modulus.Add(modulus, new(big.Int).Lsh(one, 1100)) // room for rounding
	for {
		p, err := rand.Prime(rand.Reader, 1024)
		check(t, err)
		q := new(big.Int).Div(modulus, p)
		for q.SetBit(q, 0, 1); !q.ProbablyPrime(5); {
			q.Add(q, big.NewInt(2))
		}
		order := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
		d := new(big.Int).ModInverse(e, order)
		if d == nil {
			continue
		}
		key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537}, D: d, Primes: []*big.Int{p, q}}
		key.Precompute()
		if !bytes.Contains(key.N.Bytes(), hidden) {
			t.Fatalf("modulus %x without %x", key.N, hidden)
		}
		return key
	}
}

// No signature as over a certificate or a request is made, or given away, over bytes
// that are a zip file to many readers: neither where somebody else's key hides the end
// of one, nor where it comes about in another way. Such a certificate would be a
// nodeinfo.zip, with a valid signature of the authority.
func TestNoSignatureOverHiddenZip(t *testing.T) {
	// The first byte makes it a number of 2048 bits.
	end := append([]byte{0xc0}, zipEnd+"\x00\x00\x00\x00\x01\x00\x01\x00\x40\x00\x00\x00\x00\x01\x00\x00\x00\x00"...)
	key := hidingKey(t, end)
	aa := newNode(t, nodetype.AccountingAuthority, "1234abcd", ecKey(0))
	now, serial := testNow, big.NewInt(7)
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, errAmbiguous) {
			t.Errorf("%s: got %v, want %v", what, err, errAmbiguous)
		}
	}

	derived, err := DerivedID(key.Public())
	check(t, err)
	peer := Identity{nodetype.CreditorsAgent, derived}
	name, err := peer.Subject()
	check(t, err)
	_, err = SelfSign(peer, key, serial, now)
	refused("root certificate", err)
	_, err = NewCSR(peer, key, RootCSR)
	refused("request", err)

	root := issueRoot(t, name, key)
	_, err = CheckRoot(root, now)
	refused("reading a root certificate", err)
	_, err = aa.SignPeer(root, "000001", serial, now)
	refused("peer certificate", err)
	_, err = sign(&x509.Certificate{SerialNumber: serial, RawSubject: name, NotAfter: now.Add(time.Hour)}, key.Public(), aa.Cert.RawSubject, aa.Key, now)
	refused("any certificate", err)

	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: aa.Cert.RawSubject}, key)
	check(t, err)
	csr, err := x509.ParseCertificateRequest(der)
	check(t, err)
	_, err = ParseCSRPEM(EncodeCSRPEM(der))
	refused("reading a request", err)
	_, err = aa.SignServer(csr, serial, now, time.Hour)
	refused("server certificate", err)

	der, err = NewCSR(aa.id, ecKey(1), ServerCSR)
	check(t, err)
	csr, err = x509.ParseCertificateRequest(der)
	check(t, err)
	_, err = aa.SignServer(csr, new(big.Int).SetBytes([]byte(zipEnd)), now, time.Hour)
	refused("serial number", err)
}

// issueRoot makes a root certificate as another program would.
func issueRoot(t testing.TB, name []byte, key *rsa.PrivateKey) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(certificate{subject: name, issuer: name, key: key,
		extensions: []pkix.Extension{basicConstraintsCA(1), keyUsageCA()}}.der(t))
	check(t, err)
	return cert
}

// No signature as over nodeinfo.zip is made over what begins like a certificate.
func TestNoSignatureOverCertificateAsData(t *testing.T) {
	aa := newNode(t, nodetype.AccountingAuthority, "1234abcd", ecKey(0))
	for _, der := range [][]byte{aa.Cert.RawTBSCertificate, {derSequence}} {
		if _, err := SignData(ecKey(0), der); !errors.Is(err, errAmbiguous) {
			t.Errorf("got %v, want %v", err, errAmbiguous)
		}
	}
}
