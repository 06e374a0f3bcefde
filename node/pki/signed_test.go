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
	modulus.Add(modulus, new(big.Int).Lsh(one, 1100)) // margin for rounding
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

// No certificate and no request is signed or accepted if its signed bytes are a zip
// file to many programs, because another node's key contains the end of a zip file, or
// for another reason. Such a certificate would be a nodeinfo.zip with a valid
// signature of the authority.
func TestNoSignatureOverHiddenZip(t *testing.T) {
	// With this first byte the modulus has 2048 bits.
	end := append([]byte{0xc0}, zipEnd+"\x00\x00\x00\x00\x01\x00\x01\x00\x40\x00\x00\x00\x00\x01\x00\x00\x00\x00"...)
	key := hidingKey(t, end)
	aa := newNode(t, nodetype.AccountingAuthority, "1234abcd", ecKey(0))
	now, serial := testNow, big.NewInt(7)
	checkRefused := func(what string, err error) {
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
	checkRefused("root certificate", err)
	_, err = NewCSR(peer, key, RootCSR)
	checkRefused("request", err)

	root := issueRoot(t, name, key)
	_, err = CheckRoot(root, now)
	checkRefused("reading a root certificate", err)
	_, err = aa.SignPeer(root, "000001", serial, now)
	checkRefused("peer certificate", err)
	_, err = sign(&x509.Certificate{SerialNumber: serial, RawSubject: name, NotAfter: now.Add(time.Hour)}, key.Public(), aa.Cert.RawSubject, aa.Key, now)
	checkRefused("any certificate", err)

	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: aa.Cert.RawSubject}, key)
	check(t, err)
	csr, err := x509.ParseCertificateRequest(der)
	check(t, err)
	_, err = ParseCSRPEM(EncodeCSRPEM(der))
	checkRefused("reading a request", err)
	_, err = aa.SignServer(csr, serial, now, time.Hour)
	checkRefused("server certificate", err)

	der, err = NewCSR(aa.id, ecKey(1), ServerCSR)
	check(t, err)
	csr, err = x509.ParseCertificateRequest(der)
	check(t, err)
	_, err = aa.SignServer(csr, new(big.Int).SetBytes([]byte(zipEnd)), now, time.Hour)
	checkRefused("serial number", err)
}

// issueRoot makes a root certificate as another program would make it.
func issueRoot(t testing.TB, name []byte, key *rsa.PrivateKey) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(certificate{subject: name, issuer: name, key: key,
		extensions: []pkix.Extension{basicConstraintsCA(1), keyUsageCA()}}.der(t))
	check(t, err)
	return cert
}

// SignData refuses data that begins like a certificate.
func TestNoSignatureOverCertificateAsData(t *testing.T) {
	aa := newNode(t, nodetype.AccountingAuthority, "1234abcd", ecKey(0))
	for _, der := range [][]byte{aa.Cert.RawTBSCertificate, {derSequence}} {
		if _, err := SignData(ecKey(0), der); !errors.Is(err, errAmbiguous) {
			t.Errorf("got %v, want %v", err, errAmbiguous)
		}
	}
}
