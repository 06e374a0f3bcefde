package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"testing"
	"time"
)

// slowKey is an RSA key of the largest size and the largest exponent that are
// accepted, made to be slow for whoever verifies. Its modulus is the product of
// many small primes: it is good for nothing else, but quick to make and to use.
type slowKey struct {
	pub    *rsa.PublicKey
	primes []*big.Int
}

func newSlowKey(t *testing.T) slowKey {
	t.Helper()
	k := slowKey{pub: &rsa.PublicKey{N: big.NewInt(1), E: 1<<31 - 1}}
	for range maxRSABits / 64 {
		prime, err := rand.Prime(rand.Reader, 64)
		check(t, err)
		k.primes = append(k.primes, prime)
		k.pub.N.Mul(k.pub.N, prime)
	}
	return k
}

func (k slowKey) Public() crypto.PublicKey { return k.pub }

// Sign makes a signature of PKCS #1 v1.5 with SHA-256.
func (k slowKey) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	head := []byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20}
	size := k.pub.Size()
	text := append([]byte{0, 1}, bytes.Repeat([]byte{0xff}, size-3-len(head)-len(digest))...)
	text = append(append(append(text, 0), head...), digest...)
	m, sig := new(big.Int).SetBytes(text), new(big.Int)
	for _, p := range k.primes { // the Chinese remainder theorem
		order := new(big.Int).Sub(p, big.NewInt(1))
		root := new(big.Int).Exp(m, new(big.Int).ModInverse(big.NewInt(int64(k.pub.E)), order), p)
		rest := new(big.Int).Div(k.pub.N, p)
		part := new(big.Int).ModInverse(rest, p)
		sig.Add(sig, part.Mul(part, root).Mul(part, rest))
	}
	return sig.Mod(sig, k.pub.N).FillBytes(make([]byte, size)), nil
}

// Keys of strangers are not used, however many certificates they show: crypto/x509
// would verify a hundred signatures to find that none of them leads anywhere,
// which with such keys is the work of hundreds of handshakes.
func TestStrangersKeysAreNotUsed(t *testing.T) {
	p := newPeers(t)
	key, name := newSlowKey(t), p.ca.Cert.RawSubject
	shown := [][]byte{certificate{subject: name, issuer: name, key: key}.der(t)}
	for i := range maxCertificates - 1 {
		shown = append(shown, certificate{subject: name, issuer: name, key: key, serial: int64(1000 + i),
			// crypto/x509 takes those without a difference for the same.
			extensions: []pkix.Extension{caAnyDepth(), keyUsageCA(), altNames(false, tlv(0x82, []byte{'a' + byte(i)}))}}.der(t))
	}
	start := time.Now()
	_, _, err := VerifyClient(shown, p.aa.Cert, testNow)
	took := time.Since(start)
	if !errors.Is(err, RuleIssuer) {
		t.Errorf("got %v, want %v", err, RuleIssuer)
	}
	// With the keys used it is more than half a second.
	if took > 200*time.Millisecond {
		t.Errorf("refused after %v", took)
	}
	t.Logf("refused after %v", took)
}
