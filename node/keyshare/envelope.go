package keyshare

import (
	"crypto/cipher"
	"crypto/sha256"
	"fmt"

	"peerlink/node/pki"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/scrypt"
)

// Sizes in bytes.
const (
	tagSize      = 8
	sealOverhead = chacha20poly1305.Overhead
	maxEnvelope  = headerSize + maxShares*tagSize + sealOverhead + maxEssence
)

// An envelope is the part that all pages of a split have in common: the encrypted essence of
// the key, and its description. It is immutable.
type envelope struct {
	header
	raw []byte
}

// seal makes the envelope of a split, whose share values are given by index.
func seal(h header, values []shareValue, secret *shareValue, essence, passphrase []byte) (*envelope, error) {
	h.sealedSize = len(essence) + sealOverhead
	raw, err := h.encode()
	if err != nil {
		return nil, err
	}
	for i := range values {
		tag := values[i].tag(i + 1)
		raw = append(raw, tag[:]...)
	}
	aead, err := newAEAD(h.cost, secret, passphrase)
	if err != nil {
		return nil, err
	}
	raw = aead.Seal(raw, make([]byte, aead.NonceSize()), essence, raw)
	return &envelope{h, raw}, nil
}

// readEnvelope parses an envelope without padding.
func readEnvelope(raw []byte) (*envelope, error) {
	h, err := decodeHeader(raw)
	if err != nil {
		return nil, err
	}
	if want := h.envelopeSize(); len(raw) != want {
		return nil, fmt.Errorf("%w: the sealed key has %d bytes: expected %d", errNotShare, len(raw), want)
	}
	return &envelope{h, raw}, nil
}

// open returns the essence of the key. The error wraps [pki.ErrPassphrase].
func (e *envelope) open(secret *shareValue, passphrase []byte) ([]byte, error) {
	aead, err := newAEAD(e.cost, secret, passphrase)
	if err != nil {
		return nil, err
	}
	sealedAt := len(e.raw) - e.sealedSize
	essence, err := aead.Open(nil, make([]byte, aead.NonceSize()), e.raw[sealedAt:], e.raw[:sealedAt])
	if err != nil {
		// The shares have been checked against the envelope, so only the passphrase can be
		// wrong.
		return nil, pki.ErrPassphrase
	}
	return essence, nil
}

// splitID identifies the envelope, and so the split.
func (e *envelope) splitID() splitID {
	sum := sha256.Sum256(e.raw)
	return splitID(sum[:])
}

// holds reports whether value is the value of the share with the given index.
func (e *envelope) holds(index int, value *shareValue) bool {
	at := headerSize + (index-1)*tagSize
	return [tagSize]byte(e.raw[at:]) == value.tag(index)
}

// newAEAD returns the AEAD with the key K of the package comment.
func newAEAD(cost int, secret *shareValue, passphrase []byte) (cipher.AEAD, error) {
	const r, p = 8, 1
	key, err := scrypt.Key(passphrase, secret[:], 1<<cost, r, p, chacha20poly1305.KeySize)
	if err != nil {
		return nil, err
	}
	defer clear(key) // the AEAD has a copy
	return chacha20poly1305.New(key)
}
