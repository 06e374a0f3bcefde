package pki

import (
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// ErrKeyCost is returned for an encrypted key whose key derivation asks for
// more time or memory than an honest one would.
var ErrKeyCost = errors.New("opening the private key would cost too much")

// The most that opening a key may cost: about three seconds of a processor, and
// 256 MiB. "openssl pkcs8 -topk8" and "-scrypt" ask for a hundredth of it.
const (
	maxPBKDF2Iterations = 10_000_000
	maxScryptMemory     = 256 << 20 // bytes: 128·N·r
	maxScryptWork       = 1 << 23   // N·r·p
	maxSalt             = 1 << 10   // bytes
)

var (
	oidPBES2      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidScrypt     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11591, 4, 11}
	oidHMACSHA1   = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 7}
	oidHMACSHA256 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
	oidTripleDES  = asn1.ObjectIdentifier{1, 2, 840, 113549, 3, 7}
	oidAES128CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 2}
	oidAES192CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 22}
	oidAES256CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
)

// checkPBES2 looks at an EncryptedPrivateKeyInfo (RFC 5958, with PBES2 by RFC
// 8018 and scrypt by RFC 7914) before it is given to package pkcs8, which does
// not bound the cost of key derivation and panics on ciphertexts and
// initialization vectors of wrong lengths. It accepts just what that package
// can decrypt, so that afterwards only the passphrase can be wrong.
func checkPBES2(der []byte) error {
	s := cryptobyte.String(der)
	var info, algorithm, params, kdf, cipher, ciphertext cryptobyte.String
	var scheme asn1.ObjectIdentifier
	if !s.ReadASN1(&info, cbasn1.SEQUENCE) || !s.Empty() ||
		!info.ReadASN1(&algorithm, cbasn1.SEQUENCE) ||
		!algorithm.ReadASN1ObjectIdentifier(&scheme) ||
		!info.ReadASN1(&ciphertext, cbasn1.OCTET_STRING) || !info.Empty() {
		return fmt.Errorf("%w: malformed %s", ErrNotKey, pemEncryptedKey)
	}
	if !scheme.Equal(oidPBES2) {
		return unsupportedEncryption("scheme", scheme)
	}
	if !algorithm.ReadASN1(&params, cbasn1.SEQUENCE) || !algorithm.Empty() ||
		!params.ReadASN1(&kdf, cbasn1.SEQUENCE) ||
		!params.ReadASN1(&cipher, cbasn1.SEQUENCE) || !params.Empty() {
		return fmt.Errorf("%w: malformed PBES2 parameters", ErrNotKey)
	}
	block, err := checkCipher(cipher)
	if err != nil {
		return err
	}
	if len(ciphertext) == 0 || len(ciphertext)%block != 0 {
		return fmt.Errorf("%w: encrypted content is cut off", ErrNotKey)
	}
	return checkKDF(kdf)
}

// checkCipher returns the cipher's block size in bytes.
func checkCipher(s cryptobyte.String) (block int, err error) {
	var oid asn1.ObjectIdentifier
	var iv cryptobyte.String
	if !s.ReadASN1ObjectIdentifier(&oid) {
		return 0, fmt.Errorf("%w: malformed PBES2 cipher", ErrNotKey)
	}
	switch {
	case oid.Equal(oidTripleDES):
		block = 8
	case oid.Equal(oidAES128CBC), oid.Equal(oidAES192CBC), oid.Equal(oidAES256CBC):
		block = 16
	default:
		return 0, unsupportedEncryption("cipher", oid)
	}
	if !s.ReadASN1(&iv, cbasn1.OCTET_STRING) || !s.Empty() || len(iv) != block {
		return 0, fmt.Errorf("%w: malformed initialization vector", ErrNotKey)
	}
	return block, nil
}

func checkKDF(s cryptobyte.String) error {
	var oid asn1.ObjectIdentifier
	var params, salt cryptobyte.String
	if !s.ReadASN1ObjectIdentifier(&oid) {
		return fmt.Errorf("%w: malformed key derivation", ErrNotKey)
	}
	if !oid.Equal(oidPBKDF2) && !oid.Equal(oidScrypt) {
		return unsupportedEncryption("key derivation", oid)
	}
	if !s.ReadASN1(&params, cbasn1.SEQUENCE) || !s.Empty() ||
		!params.ReadASN1(&salt, cbasn1.OCTET_STRING) || len(salt) > maxSalt {
		return fmt.Errorf("%w: malformed key derivation parameters", ErrNotKey)
	}
	if oid.Equal(oidScrypt) {
		return checkScrypt(params)
	}
	return checkPBKDF2(params)
}

func checkPBKDF2(s cryptobyte.String) error {
	var iterations int64
	if !s.ReadASN1Integer(&iterations) || iterations < 1 {
		return fmt.Errorf("%w: malformed PBKDF2 iteration count", ErrNotKey)
	}
	if iterations > maxPBKDF2Iterations {
		return fmt.Errorf("%w: %d PBKDF2 iterations: expected at most %d", ErrKeyCost, iterations, maxPBKDF2Iterations)
	}
	if s.Empty() {
		return nil // HMAC-SHA-1, the default
	}
	var prf cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !s.ReadASN1(&prf, cbasn1.SEQUENCE) || !s.Empty() || !prf.ReadASN1ObjectIdentifier(&oid) {
		return fmt.Errorf("%w: PBKDF2 parameters not understood", ErrNotKey)
	}
	if !oid.Equal(oidHMACSHA1) && !oid.Equal(oidHMACSHA256) {
		return unsupportedEncryption("PBKDF2 function", oid)
	}
	return nil
}

func checkScrypt(s cryptobyte.String) error {
	var n, r, p int64
	if !s.ReadASN1Integer(&n) || !s.ReadASN1Integer(&r) || !s.ReadASN1Integer(&p) || !s.Empty() ||
		n < 2 || n&(n-1) != 0 || r < 1 || p < 1 {
		return fmt.Errorf("%w: scrypt parameters not understood", ErrNotKey)
	}
	// Written so that no product can overflow.
	if n > maxScryptMemory/128/r || p > maxScryptWork/(n*r) {
		return fmt.Errorf("%w: scrypt with N=%d, r=%d, p=%d", ErrKeyCost, n, r, p)
	}
	return nil
}

func unsupportedEncryption(what string, oid asn1.ObjectIdentifier) error {
	return fmt.Errorf(`%w: unsupported %s %v: convert the key with "openssl pkcs8 -topk8 -v2 aes256"`, ErrNotKey, what, oid)
}
