package keyshare

import (
	"encoding/hex"
	"fmt"
	"time"

	"peerlink/node/pki"
)

// formatVersion is the version of the format that is described in the package
// comment.
const formatVersion = 1

// shareSize is the length in bytes of a share, without the sealed key.
const shareSize = 50

// A splitID identifies a split. It is the same in all shares of the split.
type splitID [14]byte

// String returns the first 4 bytes in hex, which is short enough for comparison by eye.
func (id splitID) String() string { return hex.EncodeToString(id[:4]) }

// A Share is one of several shares which together restore a root key. It is a secret.
// [Split] makes shares, and [Parse] parses them.
type Share struct {
	split                   splitID
	threshold, total, index int
	value                   shareValue
	// sealedKey is nil if only the lines of the share itself were given.
	sealedKey *sealedKey
}

// Index returns the number of the share, counted from 1.
func (s *Share) Index() int { return s.index }

// Threshold returns the number of shares that are needed to restore the key.
func (s *Share) Threshold() int { return s.threshold }

// Total returns the number of shares of the split.
func (s *Share) Total() int { return s.total }

// SplitID returns the beginning of the split ID in hex, for example "3f2a91bc". It is the same
// on all pages of a split, so that people can sort pages by it.
func (s *Share) SplitID() string { return s.split.String() }

// HasSealedKey reports whether the share includes the sealed key. [Combine] needs at least one
// share that does.
func (s *Share) HasSealedKey() bool { return s.sealedKey != nil }

// Node returns the node to which the root key belongs. It is zero without the sealed key.
func (s *Share) Node() pki.Identity {
	if s.sealedKey == nil {
		return pki.Identity{}
	}
	return s.sealedKey.node
}

// Fingerprint returns the first half of the root key's [pki.Fingerprint], followed by "...".
// It is empty without the sealed key.
func (s *Share) Fingerprint() string {
	if s.sealedKey == nil {
		return ""
	}
	return s.sealedKey.fingerprint.String()
}

// Date returns the day, in UTC, on which the shares were made. It is zero without the sealed key.
func (s *Share) Date() time.Time {
	if s.sealedKey == nil {
		return time.Time{}
	}
	return s.sealedKey.date()
}

// String returns a description of the share without secrets, for example "share 2 of 5 of
// split 3f2a91bc".
func (s *Share) String() string {
	return fmt.Sprintf("share %d of %d of split %v", s.index, s.total, s.split)
}

// encode returns the encoding of the share itself, without the sealed key.
func (s *Share) encode() []byte {
	b := make([]byte, 0, shareSize)
	b = append(b, formatVersion, byte(s.threshold), byte(s.total), byte(s.index))
	b = append(b, s.split[:]...)
	return append(b, s.value[:]...)
}

// decodeShare decodes a share from the encoding of the share itself and that of the sealed key,
// which may be nil.
func decodeShare(share, sealed []byte) (*Share, error) {
	if err := checkVersion(share); err != nil {
		return nil, err
	}
	if len(share) != shareSize {
		return nil, fmt.Errorf("%w: %d bytes: expected %d", errNotShare, len(share), shareSize)
	}
	s := &Share{
		threshold: int(share[1]),
		total:     int(share[2]),
		index:     int(share[3]),
		split:     splitID(share[4:]),
		value:     shareValue(share[18:]),
	}
	if err := checkThreshold(s.threshold, s.total); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotShare, err)
	}
	if s.index < 1 || s.index > s.total {
		return nil, fmt.Errorf("%w: share %d of %d", errNotShare, s.index, s.total)
	}
	if _, err := s.value.scalar(); err != nil {
		return nil, err
	}
	if sealed == nil {
		return s, nil
	}
	k, err := decodeSealedKey(sealed)
	if err != nil {
		return nil, err
	}
	if got := k.splitID(); got != s.split {
		return nil, fmt.Errorf("%w: %v has the sealed key of split %v: type both from one page, or from pages with the same split number", errMixed, s, got)
	}
	s.sealedKey = k
	if err := s.check(k); err != nil {
		return nil, err
	}
	return s, nil
}

// checkVersion checks the version of an encoded share, its first byte.
func checkVersion(share []byte) error {
	if len(share) > 0 && share[0] != formatVersion {
		return fmt.Errorf("%w: version %d: expected %d: use a later version of peerlink", errVersion, share[0], formatVersion)
	}
	return nil
}

// check checks that the share belongs to the sealed key, and was not altered.
func (s *Share) check(k *sealedKey) error {
	if s.threshold != k.threshold || s.total != k.total || !k.matches(s.index, &s.value) {
		return fmt.Errorf("%w: %v", errAltered, s)
	}
	return nil
}
