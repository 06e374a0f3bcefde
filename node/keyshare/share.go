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

// shareSize is the length in bytes of a share, without the envelope.
const shareSize = 50

// A splitID identifies a split. All shares of the split have it.
type splitID [14]byte

// String returns the first 4 bytes in hex, which is short enough for comparison by eye.
func (id splitID) String() string { return hex.EncodeToString(id[:4]) }

// A Share is one of several shares which together restore a root key. It is a secret.
// Shares are made by [Split] and [Parse].
type Share struct {
	split                   splitID
	threshold, total, index int
	value                   shareValue
	// envelope is nil if only the share's own lines were given.
	envelope *envelope
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

// HasEnvelope reports whether the share includes the envelope with the sealed key. [Combine]
// needs at least one share with it.
func (s *Share) HasEnvelope() bool { return s.envelope != nil }

// Node returns the node to which the root key belongs. It is zero without an envelope.
func (s *Share) Node() pki.Identity {
	if s.envelope == nil {
		return pki.Identity{}
	}
	return s.envelope.node
}

// Fingerprint returns the first half of the root key's [pki.Fingerprint], followed by "...".
// It is empty without an envelope.
func (s *Share) Fingerprint() string {
	if s.envelope == nil {
		return ""
	}
	return s.envelope.fingerprint.String()
}

// Date returns the day, in UTC, on which the shares were made. It is zero without an envelope.
func (s *Share) Date() time.Time {
	if s.envelope == nil {
		return time.Time{}
	}
	return s.envelope.date()
}

// String returns a description of the share without secrets, for example "share 2 of 5 of
// split 3f2a91bc".
func (s *Share) String() string {
	return fmt.Sprintf("share %d of %d of split %v", s.index, s.total, s.split)
}

// encode returns the encoding of the share itself, without the envelope.
func (s *Share) encode() []byte {
	b := make([]byte, 0, shareSize)
	b = append(b, formatVersion, byte(s.threshold), byte(s.total), byte(s.index))
	b = append(b, s.split[:]...)
	return append(b, s.value[:]...)
}

// decodeShare decodes a share and its envelope. raw, the envelope, may be nil.
func decodeShare(own, raw []byte) (*Share, error) {
	if err := checkVersion(own); err != nil {
		return nil, err
	}
	if len(own) != shareSize {
		return nil, fmt.Errorf("%w: %d bytes: expected %d", errNotShare, len(own), shareSize)
	}
	s := &Share{
		threshold: int(own[1]),
		total:     int(own[2]),
		index:     int(own[3]),
		split:     splitID(own[4:]),
		value:     shareValue(own[18:]),
	}
	if err := checkNumbers(s.threshold, s.total); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotShare, err)
	}
	if s.index < 1 || s.index > s.total {
		return nil, fmt.Errorf("%w: share %d of %d", errNotShare, s.index, s.total)
	}
	if _, err := s.value.scalar(); err != nil {
		return nil, err
	}
	if raw == nil {
		return s, nil
	}
	e, err := readEnvelope(raw)
	if err != nil {
		return nil, err
	}
	if got := e.splitID(); got != s.split {
		return nil, fmt.Errorf("%w: %v has the sealed key of split %v: type both from one page, or from pages with the same split number", errMixed, s, got)
	}
	s.envelope = e
	if err := s.check(e); err != nil {
		return nil, err
	}
	return s, nil
}

// checkVersion checks the version of a share, its first byte.
func checkVersion(own []byte) error {
	if len(own) > 0 && own[0] != formatVersion {
		return fmt.Errorf("%w: version %d: expected %d: use a later version of peerlink", errVersion, own[0], formatVersion)
	}
	return nil
}

// check checks that the share belongs to the envelope.
func (s *Share) check(e *envelope) error {
	if s.threshold != e.threshold || s.total != e.total || !e.holds(s.index, &s.value) {
		return fmt.Errorf("%w: %v", errAltered, s)
	}
	return nil
}
