package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
)

// Limits for keys in signing and verification. Above the upper limits, verifying an RSA
// signature would be too expensive.
const (
	minRSABits     = 2048
	maxRSABits     = 8192
	minRSAExponent = 3
	maxRSAExponent = 1<<17 - 1 // 65537 is usual
)

var (
	// ErrKeyKind is returned for keys of an unsupported kind or size. Supported are RSA
	// keys of 2048 to 8192 bits with an odd exponent from 3 to 131071 (65537 is usual),
	// and ECDSA keys on P-256, P-384 and P-521. A peer's server may also have an
	// Ed25519 key.
	ErrKeyKind = errors.New("unsupported kind of key")
	// errSignature is returned when a signature over the data was not made with the key.
	errSignature = errors.New("signature is invalid")
)

// KeyKind is a kind of key that [GenerateKey] makes. The zero value is the
// default, RSA3072.
type KeyKind int

// The kinds of keys. The reference uses RSA3072 everywhere; the specification
// does not prescribe a kind.
const (
	RSA3072 KeyKind = iota
	RSA4096
	P256
	P384
)

var keyKinds = []string{RSA3072: "rsa3072", RSA4096: "rsa4096", P256: "p256", P384: "p384"}

// String returns the name of the kind: "rsa3072", "rsa4096", "p256" or "p384".
func (k KeyKind) String() string {
	if k < 0 || int(k) >= len(keyKinds) {
		return fmt.Sprintf("pki.KeyKind(%d)", int(k))
	}
	return keyKinds[k]
}

// ParseKeyKind parses the name of a kind, as returned by String. Errors wrap
// [ErrKeyKind].
func ParseKeyKind(s string) (KeyKind, error) {
	for k, name := range keyKinds {
		if name == s {
			return KeyKind(k), nil
		}
	}
	return 0, fmt.Errorf("%w %q: expected one of %v", ErrKeyKind, clip(s), keyKinds)
}

// GenerateKey makes a new private key.
func GenerateKey(kind KeyKind) (crypto.Signer, error) {
	switch kind {
	case RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	case P256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	return nil, fmt.Errorf("%w: %v", ErrKeyKind, kind)
}

// checkPublicKey checks a root key of any node, or a server key of this node, which must
// sign with SHA-256: it does what [checkStrength] does, and refuses Ed25519. The error
// wraps ErrKeyKind.
func checkPublicKey(pub crypto.PublicKey) error {
	if _, ok := pub.(ed25519.PublicKey); ok {
		return fmt.Errorf("%w: Ed25519: expected RSA or ECDSA", ErrKeyKind)
	}
	return checkStrength(pub)
}

// checkStrength checks that a key is of a supported kind and strong enough. It is used
// for all keys, including those in the certificates of peers. The error wraps ErrKeyKind.
func checkStrength(pub crypto.PublicKey) error {
	switch pub := pub.(type) {
	case ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if n := pub.N.BitLen(); n < minRSABits || n > maxRSABits {
			return fmt.Errorf("%w: RSA of %d bits: expected %d to %d", ErrKeyKind, n, minRSABits, maxRSABits)
		}
		if pub.E < minRSAExponent || pub.E > maxRSAExponent || pub.E%2 == 0 || pub.N.Bit(0) == 0 {
			return fmt.Errorf("%w: RSA with the exponent %d or an even modulus: expected odd numbers, the exponent from %d to %d",
				ErrKeyKind, pub.E, minRSAExponent, maxRSAExponent)
		}
		return nil
	case *ecdsa.PublicKey:
		switch pub.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return fmt.Errorf("%w: ECDSA on %s: expected P-256, P-384 or P-521", ErrKeyKind, pub.Curve.Params().Name)
	}
	return fmt.Errorf("%w: %T: expected RSA or ECDSA", ErrKeyKind, pub)
}

// sameKey reports whether two public keys of any kind are equal.
func sameKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// SignData signs data as "openssl dgst -sha256 -sign" does: with SHA-256, and RSA PKCS #1
// v1.5 or ECDSA in ASN.1. It is used for info-bundles. It fails if the first byte of data is
// 0x30 (ASCII "0"), as that of a certificate. If the key is a [crypto.MessageSigner], it gets the
// data itself.
func SignData(key crypto.Signer, data []byte) ([]byte, error) {
	if err := checkPublicKey(key.Public()); err != nil {
		return nil, err
	}
	if err := checkNotDER(data); err != nil {
		return nil, err
	}
	sig, err := crypto.SignMessage(key, rand.Reader, data, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	if err := VerifyData(key.Public(), data, sig); err != nil {
		return nil, fmt.Errorf("self-check: %w", err)
	}
	return sig, nil
}

// VerifyData checks a signature made by [SignData]. If the key is not supported, the error
// wraps [ErrKeyKind]. The caller must check that data cannot be anything else that the key
// signs, for example that nodeinfo.zip is a plain zip file.
func VerifyData(pub crypto.PublicKey, data, sig []byte) error {
	if err := checkPublicKey(pub); err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		if rsa.VerifyPKCS1v15(pub, crypto.SHA256, sum[:], sig) == nil {
			return nil
		}
	case *ecdsa.PublicKey:
		if ecdsa.VerifyASN1(pub, sum[:], sig) {
			return nil
		}
	}
	return errSignature
}
