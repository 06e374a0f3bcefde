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
	// maxFile bounds PEM files of all kinds. Real ones have a few kilobytes,
	// with the human-readable dump that the reference puts before certificates.
	maxFile = 64 << 10
	// maxKeyDER is more than the largest supported RSA key needs.
	maxKeyDER = 8 << 10
	// maxPassphrase is what OpenSSL's prompt can take, in bytes.
	maxPassphrase = 1023
)

var (
	// ErrPassphrase is returned for an encrypted key if the passphrase is wrong
	// or missing. What is encrypted may also be damaged: that looks the same.
	ErrPassphrase = errors.New("wrong passphrase for the private key")
	// ErrNotKey is returned for data that is not exactly one private key in a
	// format that can be read.
	ErrNotKey = errors.New("not a private key file")
)

// The key derivation of the keys written here: scrypt with N=2^14, r=8 is the
// most memory (16 MiB) for which every OpenSSL that knows scrypt opens the key
// with its default limit of 32 MiB; p=5 makes up in time.
var keyEncryption = pkcs8.Opts{
	Cipher: pkcs8.AES256CBC,
	KDFOpts: pkcs8.ScryptOpts{
		SaltSize:                 16,
		CostParameter:            1 << 14,
		BlockSize:                8,
		ParallelizationParameter: 5,
	},
}

// EncodeKey writes a private key as unencrypted PKCS#8 in PEM, as it is usual
// for server keys.
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

// EncodeEncryptedKey writes a private key as PKCS#8 encrypted with a passphrase
// (PBES2 with scrypt and AES-256-CBC), in PEM. OpenSSL 1.1 and later read it.
// The passphrase must have 1 to 1023 bytes, which is what OpenSSL can take.
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

// DecodeKey reads a private key from PEM: PKCS#8 encrypted by PBES2, PKCS#8 or
// traditional PKCS#1 and SEC 1 in plain, and the traditional formats encrypted
// by a DEK-Info header. Text around the key, other PEM blocks, and CRLF line
// ends do not matter, nor do byte order marks and UTF-16; a second private key does.
//
// The passphrase is asked for at most once, and only if the key is encrypted;
// passphrase may be nil if it should not be. Errors wrap [ErrPassphrase],
// [ErrNotKey], [ErrKeyKind] or [ErrKeyCost], or are the passphrase function's own.
func DecodeKey(data []byte, passphrase func() ([]byte, error)) (crypto.Signer, error) {
	text, err := textfile.Decode(data)
	if err != nil {
		text = data // perhaps a key in DER, which findKey recognizes
	} else if !bytes.HasSuffix(data, text) {
		defer clear(text) // converted from UTF-16
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
		return nil, fmt.Errorf("%w: %d bytes: expected at most %d", ErrNotKey, len(data), maxFile)
	}
	var found *pem.Block
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case pemEncryptedKey, pemPKCS8Key, pemPKCS1Key, pemSEC1Key:
			if found != nil {
				return nil, fmt.Errorf("%w: more than one private key in the file", ErrNotKey)
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
		// Before anybody types a passphrase, and before any work is done.
		encrypted, err := parsePBES2(block.Bytes)
		if err != nil {
			return nil, err
		}
		pass, err := ask(passphrase)
		if err != nil {
			return nil, err
		}
		der, err := encrypted.decrypt(pass)
		if err != nil {
			return nil, err
		}
		return parseDecrypted(pemPKCS8Key, der)
	//lint:ignore SA1019 Old as the format is, the reference's root keys have it.
	case x509.IsEncryptedPEMBlock(block):
		pass, err := ask(passphrase)
		if err != nil {
			return nil, err
		}
		//lint:ignore SA1019 As above.
		der, err := x509.DecryptPEMBlock(block, pass)
		if errors.Is(err, x509.IncorrectPasswordError) {
			return nil, ErrPassphrase
		} else if err != nil {
			return nil, fmt.Errorf("%w: DEK-Info header or encrypted content not understood: %s", ErrNotKey, convertKey)
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
		// The cause is not wrapped: it may quote what it could not parse.
		return nil, fmt.Errorf("%w: malformed %s", ErrNotKey, block.Type)
	}
	return key, nil
}

// parseDecrypted parses a key that was decrypted. What is no ASN.1 means that the
// passphrase was wrong; what is can only be a key, so that the passphrase was
// right, whatever the kind of the key.
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

// parsePlainKey fails with [ErrKeyKind] for a key that can be read, and is of a kind
// that has no use here.
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

func ask(passphrase func() ([]byte, error)) ([]byte, error) {
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
