package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/youmark/pkcs8"

	"peerlink/internal/textfile"
)

// PEM block types of private keys.
const (
	pemEncryptedKey = "ENCRYPTED PRIVATE KEY"
	pemPKCS8Key     = "PRIVATE KEY"
	pemPKCS1Key     = "RSA PRIVATE KEY"
	pemSEC1Key      = "EC PRIVATE KEY"
)

const (
	// maxFile is the maximum size of a PEM file in bytes. The usual size is a few
	// kilobytes, including the human-readable dump that the reference writes before
	// certificates.
	maxFile = 64 << 10
	// maxKeyDER is the maximum size of a key in DER in bytes. The largest supported RSA
	// key is smaller.
	maxKeyDER = 8 << 10
	// maxPassphrase is the maximum length of a passphrase in bytes, the same as that of
	// OpenSSL's prompt.
	maxPassphrase = 1023
)

var (
	// ErrPassphrase is returned for an encrypted key if the passphrase is wrong or
	// missing. Damage to the encrypted data cannot be distinguished from a wrong
	// passphrase.
	ErrPassphrase = errors.New("wrong passphrase for the private key")
	// errNotKey is returned for data that is not exactly one private key in a supported
	// format.
	errNotKey = errors.New("not a private key file")
)

// keyEncryption has the parameters for encrypting keys.
var keyEncryption = pkcs8.Opts{
	Cipher: pkcs8.AES256CBC,
	KDFOpts: pkcs8.ScryptOpts{
		SaltSize:                 16,
		CostParameter:            keyCost,
		BlockSize:                8,
		ParallelizationParameter: keyParallelization,
	},
}

// EncodeKey returns a private key as unencrypted PKCS#8 in PEM, as is usual for server
// keys.
func EncodeKey(key crypto.Signer) ([]byte, error) {
	if err := checkPublicKey(key.Public()); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %T", ErrKeyKind, key)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPKCS8Key, Bytes: der}), nil
}

// EncodeEncryptedKey returns a private key as PKCS#8 encrypted with a passphrase (PBES2
// with scrypt and AES-256-CBC), in PEM. OpenSSL 1.1 and later can read it. The passphrase
// must have 1 to 1023 bytes, the limit of OpenSSL.
func EncodeEncryptedKey(key crypto.Signer, passphrase []byte) ([]byte, error) {
	if err := checkPublicKey(key.Public()); err != nil {
		return nil, err
	}
	if len(passphrase) == 0 || len(passphrase) > maxPassphrase {
		return nil, fmt.Errorf("a passphrase of %d bytes can not be used: expected 1 to %d", len(passphrase), maxPassphrase)
	}
	der, err := pkcs8.MarshalPrivateKey(key, passphrase, &keyEncryption)
	if err != nil {
		return nil, fmt.Errorf("%w: %T", ErrKeyKind, key)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemEncryptedKey, Bytes: der}), nil
}

// DecodeKey parses a private key in PEM: PKCS#8 encrypted with PBES2, unencrypted PKCS#8,
// and the traditional formats PKCS#1 and SEC 1, unencrypted or encrypted with a DEK-Info
// header. Text around the key, other PEM blocks, CRLF line ends, byte order marks and
// UTF-16 are accepted; a second private key is not.
//
// DecodeKey calls passphrase at most once, and only if the key is encrypted. If
// passphrase is nil, encrypted keys are refused with [ErrPassphrase]. Errors wrap
// [ErrPassphrase], [ErrKeyKind] or [ErrKeyCost], are the error of passphrase, or report that
// data is not exactly one private key in a supported format.
func DecodeKey(data []byte, passphrase func() ([]byte, error)) (crypto.Signer, error) {
	text, err := textfile.Decode(data)
	if err != nil {
		text = data // findKey has an error of its own for a key in DER
	} else if !bytes.HasSuffix(data, text) {
		defer clear(text) // a copy, converted from UTF-16
	}
	block, err := findKey(text)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(block, passphrase)
	if err != nil {
		return nil, err
	}
	if err := checkPublicKey(key.Public()); err != nil {
		return nil, err
	}
	return key, nil
}

// findKey returns the only private key in a PEM file.
func findKey(data []byte) (*pem.Block, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("%w: %d bytes: expected at most %d", errNotKey, len(data), maxFile)
	}
	var found *pem.Block
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case pemEncryptedKey, pemPKCS8Key, pemPKCS1Key, pemSEC1Key:
			if found != nil {
				return nil, fmt.Errorf("%w: more than one private key in the file", errNotKey)
			}
			found = block
		}
	}
	switch {
	case found == nil:
		return nil, explainNoKey(data)
	case len(found.Bytes) > maxKeyDER:
		return nil, fmt.Errorf("%w: a key of %d bytes: expected at most %d", ErrKeyKind, len(found.Bytes), maxKeyDER)
	}
	return found, nil
}

func parseKey(block *pem.Block, passphrase func() ([]byte, error)) (crypto.Signer, error) {
	switch {
	case block.Type == pemEncryptedKey:
		// Checked before the passphrase is requested and before the key derivation.
		encrypted, err := parsePBES2(block.Bytes)
		if err != nil {
			return nil, err
		}
		pass, err := getPassphrase(passphrase)
		if err != nil {
			return nil, err
		}
		der, err := encrypted.decrypt(pass)
		if err != nil {
			return nil, err
		}
		return parseDecrypted(pemPKCS8Key, der)
	//lint:ignore SA1019 The format is old, but the reference's root keys have it.
	case x509.IsEncryptedPEMBlock(block):
		pass, err := getPassphrase(passphrase)
		if err != nil {
			return nil, err
		}
		//lint:ignore SA1019 As above.
		der, err := x509.DecryptPEMBlock(block, pass)
		if errors.Is(err, x509.IncorrectPasswordError) {
			return nil, ErrPassphrase
		} else if err != nil {
			return nil, fmt.Errorf("%w: DEK-Info header or encrypted content not understood: %s", errNotKey, convertKey)
		}
		return parseDecrypted(block.Type, der)
	}
	key, err := parsePlainKey(block.Type, block.Bytes)
	if errors.Is(err, ErrKeyKind) {
		if algorithm, ok := algorithmOf(block.Type, block.Bytes); ok {
			err = fmt.Errorf("%w: this is %s", ErrKeyKind, explainAlgorithm(algorithm))
		}
		return nil, err
	}
	if err != nil {
		// The cause is not wrapped, because it may quote parts of the key.
		return nil, fmt.Errorf("%w: malformed %s", errNotKey, block.Type)
	}
	return key, nil
}

// parseDecrypted parses a decrypted key. If the data is not well-formed ASN.1, the
// passphrase was wrong. Otherwise the passphrase was right, and the key may still be of
// an unsupported kind.
func parseDecrypted(pemType string, der []byte) (crypto.Signer, error) {
	defer clear(der)
	key, err := parsePlainKey(pemType, der)
	if err == nil {
		return key, nil
	}
	algorithm, ok := algorithmOf(pemType, der)
	if !ok {
		return nil, ErrPassphrase
	}
	return nil, fmt.Errorf("%w: the passphrase is right, but this is %s", ErrKeyKind, explainAlgorithm(algorithm))
}

// parsePlainKey parses an unencrypted key. It fails with [ErrKeyKind] for a key that crypto/x509
// can parse and that is neither RSA nor ECDSA. Other errors are those of crypto/x509, also for
// kinds that it does not support.
func parsePlainKey(pemType string, der []byte) (crypto.Signer, error) {
	var key any
	var err error
	switch pemType {
	case pemPKCS1Key:
		key, err = x509.ParsePKCS1PrivateKey(der)
	case pemSEC1Key:
		key, err = x509.ParseECPrivateKey(der)
	default:
		key, err = x509.ParsePKCS8PrivateKey(der)
	}
	if err != nil {
		return nil, err
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return key, nil
	case *ecdsa.PrivateKey:
		return key, nil
	}
	return nil, ErrKeyKind
}

// getPassphrase calls passphrase, which may be nil, and checks the length of the result.
func getPassphrase(passphrase func() ([]byte, error)) ([]byte, error) {
	if passphrase == nil {
		return nil, fmt.Errorf("%w: the key is encrypted, and no passphrase was given", ErrPassphrase)
	}
	pass, err := passphrase()
	if err != nil {
		return nil, err
	}
	if len(pass) == 0 || len(pass) > maxPassphrase {
		return nil, fmt.Errorf("%w: expected 1 to %d bytes", ErrPassphrase, maxPassphrase)
	}
	return pass, nil
}
