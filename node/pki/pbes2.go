package pki

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/youmark/pkcs8"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/scrypt"
)

// ErrKeyCost is returned for an encrypted key whose key derivation needs more time or
// memory than is allowed.
var ErrKeyCost = errors.New("opening the private key would cost too much")

// The maximum cost of decrypting a key: about three seconds of processor time, and 256
// MiB. Keys of "openssl pkcs8 -topk8", with or without "-scrypt", need about a hundredth
// of that.
const (
	maxPBKDF2Iterations = 10_000_000
	maxScryptMemory     = 256 << 20 // bytes: 128·N·r
	maxScryptWork       = 1 << 23   // N·r·p
	maxSalt             = 1 << 10   // bytes
)

var (
	oidPBES2     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidScrypt    = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11591, 4, 11}
	oidTripleDES = asn1.ObjectIdentifier{1, 2, 840, 113549, 3, 7}
	oidAES128CBC = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 2}
	oidAES192CBC = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 22}
	oidAES256CBC = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
)

// An encryption is an EncryptedPrivateKeyInfo (RFC 5958, with PBES2 by RFC 8018 and scrypt
// by RFC 7914).
type encryption struct {
	cipher     pkcs8.Cipher
	iv         []byte
	ciphertext []byte
	derive     func(passphrase []byte, size int) ([]byte, error)
}

// parsePBES2 parses an encrypted key, and checks that decrypting it is not too expensive.
// It fails for unsupported algorithms, so that decryption can later fail only because of
// the passphrase or damaged data.
func parsePBES2(der []byte) (*encryption, error) {
	s := cryptobyte.String(der)
	var info, algorithm, params, kdf, cipher, ciphertext cryptobyte.String
	var scheme asn1.ObjectIdentifier
	if !s.ReadASN1(&info, cbasn1.SEQUENCE) || !s.Empty() ||
		!info.ReadASN1(&algorithm, cbasn1.SEQUENCE) ||
		!algorithm.ReadASN1ObjectIdentifier(&scheme) ||
		!info.ReadASN1(&ciphertext, cbasn1.OCTET_STRING) || !info.Empty() {
		return nil, fmt.Errorf("%w: malformed %s", errNotKey, pemEncryptedKey)
	}
	if !scheme.Equal(oidPBES2) {
		return nil, unsupportedEncryption("scheme", scheme)
	}
	if !algorithm.ReadASN1(&params, cbasn1.SEQUENCE) || !algorithm.Empty() ||
		!params.ReadASN1(&kdf, cbasn1.SEQUENCE) ||
		!params.ReadASN1(&cipher, cbasn1.SEQUENCE) || !params.Empty() {
		return nil, fmt.Errorf("%w: malformed PBES2 parameters", errNotKey)
	}
	e := encryption{ciphertext: ciphertext}
	if err := e.setCipher(cipher); err != nil {
		return nil, err
	}
	if len(ciphertext) == 0 || len(ciphertext)%e.cipher.IVSize() != 0 {
		return nil, fmt.Errorf("%w: encrypted content is cut off", errNotKey)
	}
	if err := e.setKDF(kdf); err != nil {
		return nil, err
	}
	return &e, nil
}

// decrypt returns the key in DER. It fails with [ErrPassphrase] if the result is not DER
// with valid padding.
func (e *encryption) decrypt(passphrase []byte) ([]byte, error) {
	key, err := e.derive(passphrase, e.cipher.KeySize())
	if err != nil {
		return nil, err
	}
	defer clear(key)
	padded, err := e.cipher.Decrypt(key, e.iv, e.ciphertext)
	if err != nil {
		return nil, err
	}
	var der cryptobyte.String
	rest := cryptobyte.String(padded)
	// The key is followed by the padding: n bytes of the value n.
	if !rest.ReadASN1Element(&der, cbasn1.SEQUENCE) || len(rest) == 0 || len(rest) > e.cipher.IVSize() ||
		bytes.Count(rest, []byte{byte(len(rest))}) != len(rest) {
		clear(padded)
		return nil, ErrPassphrase
	}
	return der, nil
}

func (e *encryption) setCipher(s cryptobyte.String) error {
	var oid asn1.ObjectIdentifier
	var iv cryptobyte.String
	if !s.ReadASN1ObjectIdentifier(&oid) {
		return fmt.Errorf("%w: malformed PBES2 cipher", errNotKey)
	}
	switch {
	case oid.Equal(oidTripleDES):
		e.cipher = pkcs8.TripleDESCBC
	case oid.Equal(oidAES128CBC):
		e.cipher = pkcs8.AES128CBC
	case oid.Equal(oidAES192CBC):
		e.cipher = pkcs8.AES192CBC
	case oid.Equal(oidAES256CBC):
		e.cipher = pkcs8.AES256CBC
	default:
		return unsupportedEncryption("cipher", oid)
	}
	if !s.ReadASN1(&iv, cbasn1.OCTET_STRING) || !s.Empty() || len(iv) != e.cipher.IVSize() {
		return fmt.Errorf("%w: malformed initialization vector", errNotKey)
	}
	e.iv = iv
	return nil
}

func (e *encryption) setKDF(s cryptobyte.String) error {
	var oid asn1.ObjectIdentifier
	var params, salt cryptobyte.String
	if !s.ReadASN1ObjectIdentifier(&oid) {
		return fmt.Errorf("%w: malformed key derivation", errNotKey)
	}
	if !oid.Equal(oidPBKDF2) && !oid.Equal(oidScrypt) {
		return unsupportedEncryption("key derivation", oid)
	}
	if !s.ReadASN1(&params, cbasn1.SEQUENCE) || !s.Empty() ||
		!params.ReadASN1(&salt, cbasn1.OCTET_STRING) || len(salt) > maxSalt {
		return fmt.Errorf("%w: key derivation parameters malformed, or with a salt of more than %d bytes", errNotKey, maxSalt)
	}
	if oid.Equal(oidScrypt) {
		return e.setScrypt(salt, params)
	}
	return e.setPBKDF2(salt, params)
}

func (e *encryption) setPBKDF2(salt []byte, s cryptobyte.String) error {
	var iterations int64
	if !s.ReadASN1Integer(&iterations) || iterations < 1 {
		return fmt.Errorf("%w: malformed PBKDF2 iteration count", errNotKey)
	}
	if iterations > maxPBKDF2Iterations {
		return fmt.Errorf("%w: %d PBKDF2 iterations: expected at most %d", ErrKeyCost, iterations, maxPBKDF2Iterations)
	}
	newHash := sha1.New // HMAC-SHA-1, the default
	e.derive = func(passphrase []byte, size int) ([]byte, error) {
		return pbkdf2.Key(newHash, string(passphrase), salt, int(iterations), size)
	}
	if s.Empty() {
		return nil
	}
	var prf cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !s.ReadASN1(&prf, cbasn1.SEQUENCE) || !s.Empty() || !prf.ReadASN1ObjectIdentifier(&oid) {
		return fmt.Errorf("%w: PBKDF2 parameters not understood", errNotKey)
	}
	switch oid.String() {
	case "1.2.840.113549.2.7":
	case "1.2.840.113549.2.8":
		newHash = sha256.New224
	case "1.2.840.113549.2.9":
		newHash = sha256.New
	case "1.2.840.113549.2.10":
		newHash = sha512.New384
	case "1.2.840.113549.2.11":
		newHash = sha512.New
	default:
		return unsupportedEncryption("PBKDF2 function", oid)
	}
	return nil
}

func (e *encryption) setScrypt(salt []byte, s cryptobyte.String) error {
	var n, r, p int64
	if !s.ReadASN1Integer(&n) || !s.ReadASN1Integer(&r) || !s.ReadASN1Integer(&p) || !s.Empty() ||
		n < 2 || n&(n-1) != 0 || r < 1 || p < 1 {
		return fmt.Errorf("%w: scrypt parameters not understood", errNotKey)
	}
	// The comparison uses divisions so that no product can overflow.
	if n > maxScryptMemory/128/r || p > maxScryptWork/(n*r) {
		return fmt.Errorf("%w: scrypt with N=%d, r=%d, p=%d", ErrKeyCost, n, r, p)
	}
	e.derive = func(passphrase []byte, size int) ([]byte, error) {
		return scrypt.Key(passphrase, salt, int(n), int(r), int(p), size)
	}
	return nil
}
