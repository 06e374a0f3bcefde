package keyshare

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"

	"peerlink/node/pki"
)

// maxCompactKey is the length in bytes of a prime of the largest RSA key that package pki
// supports.
const maxCompactKey = 8192 / 2 / 8

var errOtherCompactKey = errors.New("not the compact key of this public key")

// compactKeyOf returns the compact key of a private key, the smallest part from which the private
// key can be computed, given the public key: the smaller prime of an RSA key, the scalar of an
// ECDSA key. The caller must clear it after use. Errors wrap [pki.ErrKeyKind].
func compactKeyOf(key crypto.Signer) ([]byte, error) {
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if len(key.Primes) != 2 {
			return nil, fmt.Errorf("%w: RSA with %d primes: expected two", pki.ErrKeyKind, len(key.Primes))
		}
		p, q := key.Primes[0], key.Primes[1]
		if p.Cmp(q) > 0 {
			p = q
		}
		return p.Bytes(), nil
	case *ecdsa.PrivateKey:
		compact, err := key.Bytes()
		if err != nil {
			return nil, fmt.Errorf("%w: ECDSA on another curve, or not a valid key", pki.ErrKeyKind)
		}
		// A copy, because crypto/ecdsa continues to use the bytes.
		return bytes.Clone(compact), nil
	}
	return nil, fmt.Errorf("%w: %T: expected RSA or ECDSA", pki.ErrKeyKind, key)
}

// expandKey computes a private key from its compact key and its public key. It fails if the compact
// key is that of another key.
func expandKey(compact []byte, pub crypto.PublicKey) (crypto.Signer, error) {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		key, err := expandRSAKey(compact, pub)
		if err != nil {
			return nil, err
		}
		return key, nil
	case *ecdsa.PublicKey:
		key, err := ecdsa.ParseRawPrivateKey(pub.Curve, compact)
		if err != nil || !key.PublicKey.Equal(pub) {
			return nil, errOtherCompactKey
		}
		return key, nil
	}
	return nil, fmt.Errorf("%w: %T: expected RSA or ECDSA", pki.ErrKeyKind, pub)
}

func expandRSAKey(compact []byte, pub *rsa.PublicKey) (*rsa.PrivateKey, error) {
	one := big.NewInt(1)
	p := new(big.Int).SetBytes(compact)
	if p.Cmp(one) <= 0 || pub.N.Sign() <= 0 {
		return nil, errOtherCompactKey
	}
	q, rest := new(big.Int).QuoRem(pub.N, p, new(big.Int))
	if rest.Sign() != 0 || q.Cmp(one) <= 0 {
		return nil, errOtherCompactKey
	}
	// λ = lcm(p-1, q-1), as in FIPS 186-5 and OpenSSL: the smallest d.
	p1, q1 := new(big.Int).Sub(p, one), new(big.Int).Sub(q, one)
	lambda := new(big.Int).Mul(p1, q1)
	lambda.Div(lambda, new(big.Int).GCD(nil, nil, p1, q1))
	d := new(big.Int).ModInverse(big.NewInt(int64(pub.E)), lambda)
	if d == nil {
		return nil, errOtherCompactKey
	}
	// The larger prime first, as is usual.
	key := &rsa.PrivateKey{PublicKey: *pub, D: d, Primes: []*big.Int{q, p}}
	key.Precompute()
	if err := key.Validate(); err != nil {
		return nil, errOtherCompactKey
	}
	return key, nil
}

// checkKind checks that the kind of a key is supported for root keys.
func checkKind(pub crypto.PublicKey) error {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		if n := pub.N.BitLen(); n < 2048 || n > 8192 {
			return fmt.Errorf("%w: RSA of %d bits: expected 2048 to 8192", pki.ErrKeyKind, n)
		}
		return nil
	case *ecdsa.PublicKey:
		switch pub.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
	}
	return fmt.Errorf("%w: expected RSA, or ECDSA on P-256, P-384 or P-521", pki.ErrKeyKind)
}
