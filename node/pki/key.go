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

// Limits for keys that take part in signing or verifying anything. RSA keys
// beyond the upper ones cost a verifier more than a stranger may ask for.
const (
	minRSABits     = 2048
	maxRSABits     = 8192
	minRSAExponent = 3
	maxRSAExponent = 1<<17 - 1 // 65537 is usual
)

var (
	// ErrKeyKind is returned for keys of a kind or size that this package does
	// not work with: anything but RSA of 2048 to 8192 bits, with an odd exponent
	// from 3 to 131071 (65537 is usual), and ECDSA on P-256,
	// P-384 and P-521. A peer's server may also have an Ed25519 key.
	ErrKeyKind = errors.New("unsupported kind of key")
	// ErrSignature is returned when a signature is not the key's over the data.
	ErrSignature = errors.New("signature is invalid")
)

// KeyKind is a kind of key that [GenerateKey] makes. The zero value is the
// default, RSA3072.
type KeyKind int

// The kinds of keys. The reference uses RSA3072 everywhere, and the
// specification fixes nothing.
const (
	RSA3072 KeyKind = iota
	RSA4096
	P256
	P384
)

var keyKinds = []string{RSA3072: "rsa3072", RSA4096: "rsa4096", P256: "p256", P384: "p384"}

// String is the name of the kind: "rsa3072", "rsa4096", "p256" or "p384".
func (k KeyKind) String() string {
	if k < 0 || int(k) >= len(keyKinds) {
		return fmt.Sprintf("pki.KeyKind(%d)", int(k))
	}
	return keyKinds[k]
}

// ParseKeyKind reads the name of a kind, as String writes it. Errors wrap
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

// checkPublicKey checks a key that signs with SHA-256, as root keys and our own server
// keys do: [checkStrength], and not Ed25519. The error wraps ErrKeyKind.
func checkPublicKey(pub crypto.PublicKey) error {
	if _, ok := pub.(ed25519.PublicKey); ok {
		return fmt.Errorf("%w: Ed25519: expected RSA or ECDSA", ErrKeyKind)
	}
	return checkStrength(pub)
}

// checkStrength is the one rule for which keys are strong enough, for everything that
// is signed and everybody who shows a certificate. The error wraps ErrKeyKind.
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

// sameKey compares public keys of any kind.
func sameKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// SignData signs with SHA-256, and RSA PKCS #1 v1.5 or ECDSA in ASN.1, which is
// what "openssl dgst -sha256 -sign" does. Info-bundles are signed like this. Data that
// begins like a certificate is refused with [ErrAmbiguous].
func SignData(key crypto.Signer, data []byte) ([]byte, error) {
	if err := checkPublicKey(key.Public()); err != nil {
		return nil, err
	}
	if err := checkData(data); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	return key.Sign(rand.Reader, sum[:], crypto.SHA256)
}

// VerifyData checks a signature made by [SignData]. The error wraps
// [ErrSignature] or [ErrKeyKind]. It is for the caller to check that data can not be
// anything else that the key signs: that nodeinfo.zip is a plain zip file.
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
	return ErrSignature
}
