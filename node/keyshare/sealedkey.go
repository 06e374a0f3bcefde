package keyshare

import (
	"crypto/cipher"
	"crypto/sha256"
	"fmt"

	"peerlink/node/pki"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/scrypt"
)

// Sizes in bytes ("Format" in the package comment).
const (
	shareHashSize = 8 // of the truncated hash by which a sealed key identifies a share
	sealOverhead  = chacha20poly1305.Overhead
	maxSealedKey  = headerSize + maxShares*shareHashSize + sealOverhead + maxCompactKey
)

// A sealedKey is the part that all pages of a split have in common: the encrypted compact
// key, its description, and the hashes of the shares. It is immutable.
type sealedKey struct {
	header
	raw []byte // the encoded sealed key, including the header
}

// seal makes the sealed key of a split from the compact key of the root key. values are the values
// of the shares, by index.
func seal(h header, values []shareValue, secret *shareValue, compact, passphrase []byte) (*sealedKey, error) {
	h.ciphertextSize = len(compact) + sealOverhead
	raw, err := h.encode()
	if err != nil {
		return nil, err
	}
	for i := range values {
		hash := values[i].hash(i + 1)
		raw = append(raw, hash[:]...)
	}
	aead, err := newAEAD(h.cost, secret, passphrase)
	if err != nil {
		return nil, err
	}
	raw = aead.Seal(raw, make([]byte, aead.NonceSize()), compact, raw)
	return &sealedKey{h, raw}, nil
}

// decodeSealedKey decodes a sealed key without padding.
func decodeSealedKey(raw []byte) (*sealedKey, error) {
	h, err := decodeHeader(raw)
	if err != nil {
		return nil, err
	}
	if want := h.sealedKeySize(); len(raw) != want {
		return nil, fmt.Errorf("%w: the sealed key has %d bytes: expected %d", errNotShare, len(raw), want)
	}
	return &sealedKey{h, raw}, nil
}

// open decrypts the compact key of the root key. If the passphrase is wrong, the error is
// [pki.ErrPassphrase].
func (k *sealedKey) open(secret *shareValue, passphrase []byte) ([]byte, error) {
	aead, err := newAEAD(k.cost, secret, passphrase)
	if err != nil {
		return nil, err
	}
	at := len(k.raw) - k.ciphertextSize
	compact, err := aead.Open(nil, make([]byte, aead.NonceSize()), k.raw[at:], k.raw[:at])
	if err != nil {
		// The shares have been checked against the sealed key, so only the passphrase can be
		// wrong.
		return nil, pki.ErrPassphrase
	}
	return compact, nil
}

// splitID returns the ID of the split: a truncated hash of the sealed key.
func (k *sealedKey) splitID() splitID {
	sum := sha256.Sum256(k.raw)
	return splitID(sum[:])
}

// matches reports whether value is the value of the share with the given index, by its hash.
func (k *sealedKey) matches(index int, value *shareValue) bool {
	at := headerSize + (index-1)*shareHashSize
	return [shareHashSize]byte(k.raw[at:]) == value.hash(index)
}

// newAEAD returns the AEAD with the key K of the package comment.
func newAEAD(cost int, secret *shareValue, passphrase []byte) (cipher.AEAD, error) {
	const r, p = 8, 1
	key, err := scrypt.Key(passphrase, secret[:], 1<<cost, r, p, chacha20poly1305.KeySize)
	if err != nil {
		return nil, err
	}
	defer clear(key) // chacha20poly1305.New copies the key
	return chacha20poly1305.New(key)
}
