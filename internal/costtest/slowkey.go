package costtest

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"io"
	"math/big"
	"testing"
)

// SlowKey is an RSA key of any size and exponent that is slow to verify with. Its modulus
// is the product of many small primes: it is insecure, but fast to generate and to sign
// with.
type SlowKey struct {
	pub    *rsa.PublicKey
	primes []*big.Int
}

// NewSlowKey generates a key; bits must be a multiple of 64.
func NewSlowKey(t testing.TB, bits, exponent int) SlowKey {
	t.Helper()
	k := SlowKey{pub: &rsa.PublicKey{N: big.NewInt(1), E: exponent}}
	for e := big.NewInt(int64(exponent)); len(k.primes) < bits/64; {
		prime, err := rand.Prime(rand.Reader, 64)
		if err != nil {
			t.Fatal(err)
		}
		if new(big.Int).ModInverse(e, new(big.Int).Sub(prime, big.NewInt(1))) == nil {
			continue
		}
		k.primes = append(k.primes, prime)
		k.pub.N.Mul(k.pub.N, prime)
	}
	return k
}

// Public returns the public key.
func (k SlowKey) Public() crypto.PublicKey { return k.pub }

// Sign returns a signature of PKCS #1 v1.5 with SHA-256.
func (k SlowKey) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
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
