package keyshare

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"time"

	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// maxShares is the maximum number of shares of a split.
const maxShares = 16

// Sizes in bytes, and the limits of scrypt's cost ("Format" in the package
// comment).
const (
	headerSize      = 28
	fingerprintSize = 16

	minCost = 10
	maxCost = 20 // 1 GiB of memory, for some seconds
)

// A header is the beginning of a sealed key: its description.
type header struct {
	node             pki.Identity
	fingerprint      fingerprint
	day              uint16 // days since 1970-01-01
	threshold, total int
	cost             int // binary logarithm of scrypt's N
	ciphertextSize   int // bytes, including the authentication tag
}

// A fingerprint is the first half of [pki.Fingerprint].
type fingerprint [fingerprintSize]byte

func fingerprintOf(pub crypto.PublicKey) (fingerprint, error) {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return fingerprint{}, fmt.Errorf("%w: %T", pki.ErrKeyKind, pub)
	}
	sum := sha256.Sum256(spki)
	return fingerprint(sum[:fingerprintSize]), nil
}

func (f fingerprint) String() string { return "sha256:" + hex.EncodeToString(f[:]) + "..." }

// nodeTypeCodes has the node types by their numbers in the format.
var nodeTypeCodes = [...]nodetype.Type{
	1: nodetype.AccountingAuthority,
	2: nodetype.CreditorsAgent,
	3: nodetype.DebtorsAgent,
}

func (h *header) encode() ([]byte, error) {
	b := make([]byte, headerSize)
	for n, t := range nodeTypeCodes {
		if n > 0 && t == h.node.Type {
			b[0] = byte(n)
		}
	}
	if !h.node.Type.IDDerived() {
		if _, err := hex.Decode(b[1:5], []byte(h.node.ID)); err != nil {
			return nil, fmt.Errorf("node ID %q: %w", h.node.ID, err)
		}
	}
	copy(b[5:], h.fingerprint[:])
	binary.BigEndian.PutUint16(b[21:], h.day)
	b[23], b[24], b[25] = byte(h.threshold), byte(h.total), byte(h.cost)
	binary.BigEndian.PutUint16(b[26:], uint16(h.ciphertextSize))
	return b, nil
}

// decodeHeader decodes the output of encode. Errors wrap [errNotShare], or [pki.ErrKeyCost]
// if decrypting would be too expensive.
func decodeHeader(b []byte) (header, error) {
	if len(b) < headerSize {
		return header{}, fmt.Errorf("%w: the sealed key is cut off", errNotShare)
	}
	h := header{
		fingerprint:    fingerprint(b[5:]),
		day:            binary.BigEndian.Uint16(b[21:]),
		threshold:      int(b[23]),
		total:          int(b[24]),
		cost:           int(b[25]),
		ciphertextSize: int(binary.BigEndian.Uint16(b[26:])),
	}
	if b[0] < 1 || int(b[0]) >= len(nodeTypeCodes) {
		return header{}, fmt.Errorf("%w: node type %d: expected 1 to %d", errNotShare, b[0], len(nodeTypeCodes)-1)
	}
	h.node.Type = nodeTypeCodes[b[0]]
	switch {
	case !h.node.Type.IDDerived():
		h.node.ID = hex.EncodeToString(b[1:5])
	case [4]byte(b[1:]) != [4]byte{}:
		return header{}, fmt.Errorf("%w: the node ID of %s is not that of its root key", errNotShare, h.node.Type)
	default:
		h.node.ID = hex.EncodeToString(h.fingerprint[:])
	}
	if err := checkThreshold(h.threshold, h.total); err != nil {
		return header{}, fmt.Errorf("%w: %w", errNotShare, err)
	}
	switch {
	case h.cost > maxCost:
		return header{}, fmt.Errorf("%w: scrypt with N=2^%d: expected at most 2^%d", pki.ErrKeyCost, h.cost, maxCost)
	case h.cost < minCost:
		return header{}, fmt.Errorf("%w: scrypt with N=2^%d: expected at least 2^%d", errNotShare, h.cost, minCost)
	case h.ciphertextSize <= sealOverhead || h.ciphertextSize > sealOverhead+maxCompactKey:
		return header{}, fmt.Errorf("%w: the sealed key has %d bytes of ciphertext: expected %d to %d", errNotShare,
			h.ciphertextSize, sealOverhead+1, sealOverhead+maxCompactKey)
	}
	return h, nil
}

// checkThreshold checks the threshold T and the total number N of shares.
func checkThreshold(threshold, total int) error {
	switch {
	case total < 2 || total > maxShares:
		return fmt.Errorf("%d shares: expected 2 to %d", total, maxShares)
	case threshold < 2 || threshold > total:
		return fmt.Errorf("%d of %d shares needed: expected 2 to %d", threshold, total, total)
	}
	return nil
}

// sealedKeySize returns the length in bytes of the whole sealed key.
func (h *header) sealedKeySize() int { return headerSize + h.total*shareHashSize + h.ciphertextSize }

func (h *header) date() time.Time { return time.Unix(int64(h.day)*86400, 0).UTC() }

// dayOf returns the days from 1970-01-01 to t in UTC. It fails before that day, and from
// 2149-06-07 on.
func dayOf(t time.Time) (uint16, error) {
	day := t.Unix() / 86400
	if t.Unix() < 0 || day > math.MaxUint16 {
		return 0, fmt.Errorf("the date %s cannot be written on a share: is the clock right?", t.UTC().Format(time.DateOnly))
	}
	return uint16(day), nil
}
