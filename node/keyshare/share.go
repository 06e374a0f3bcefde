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

// A splitID is what shares have in common that were made together.
type splitID [14]byte

// String is short enough to be compared by eye.
func (id splitID) String() string { return hex.EncodeToString(id[:4]) }

// A Share is one of several which together restore a root key. It is a secret.
// Shares come from [Split] and [Parse].
type Share struct {
	split                   splitID
	threshold, total, index int
	value                   shareValue
	// envelope is nil if only the share's own lines were given.
	envelope *envelope
}

// Index is the number of the share, counted from 1.
func (s *Share) Index() int { return s.index }

// Threshold is how many shares restore the key.
func (s *Share) Threshold() int { return s.threshold }

// Total is how many shares were made.
func (s *Share) Total() int { return s.total }

// SplitID is the beginning of the split ID, in hex, for people who sort pages.
// It is "3f2a91bc", say, on all shares that were made together.
func (s *Share) SplitID() string { return s.split.String() }

// HasEnvelope reports whether the share came with the sealed key, and not with
// its own lines only. [Combine] needs one that has.
func (s *Share) HasEnvelope() bool { return s.envelope != nil }

// Node is whose root key it is. It is zero without an envelope.
func (s *Share) Node() pki.Identity {
	if s.envelope == nil {
		return pki.Identity{}
	}
	return s.envelope.node
}

// Fingerprint is the first half of the root key's [pki.Fingerprint], followed by
// "...". It is empty without an envelope.
func (s *Share) Fingerprint() string {
	if s.envelope == nil {
		return ""
	}
	return s.envelope.fingerprint.String()
}

// Date is the day on which the shares were made, by UTC. It is zero without an
// envelope.
func (s *Share) Date() time.Time {
	if s.envelope == nil {
		return time.Time{}
	}
	return s.envelope.date()
}

// String names the share without telling anything secret: "share 2 of 5 of
// split 3f2a91bc".
func (s *Share) String() string {
	return fmt.Sprintf("share %d of %d of split %v", s.index, s.total, s.split)
}

// encode writes the share itself, without the envelope.
func (s *Share) encode() []byte {
	b := make([]byte, 0, shareSize)
	b = append(b, formatVersion, byte(s.threshold), byte(s.total), byte(s.index))
	b = append(b, s.split[:]...)
	return append(b, s.value[:]...)
}

// decodeShare reads a share and its envelope, whose bytes may be nil.
func decodeShare(own, raw []byte) (*Share, error) {
	if err := checkVersion(own); err != nil {
		return nil, err
	}
	if len(own) != shareSize {
		return nil, fmt.Errorf("%w: %d bytes: expected %d", ErrNotShare, len(own), shareSize)
	}
	s := &Share{
		threshold: int(own[1]),
		total:     int(own[2]),
		index:     int(own[3]),
		split:     splitID(own[4:]),
		value:     shareValue(own[18:]),
	}
	if err := checkNumbers(s.threshold, s.total); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotShare, err)
	}
	if s.index < 1 || s.index > s.total {
		return nil, fmt.Errorf("%w: share %d of %d", ErrNotShare, s.index, s.total)
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
		return nil, fmt.Errorf("%w: %v has the sealed key of split %v: type both from one page, or from pages with the same split number", ErrMixed, s, got)
	}
	s.envelope = e
	if err := s.check(e); err != nil {
		return nil, err
	}
	return s, nil
}

// checkVersion looks at the first byte of a share.
func checkVersion(own []byte) error {
	if len(own) > 0 && own[0] != formatVersion {
		return fmt.Errorf("%w: version %d: expected %d: use a later version of peerlink", ErrVersion, own[0], formatVersion)
	}
	return nil
}

// check compares the share with the envelope of its split.
func (s *Share) check(e *envelope) error {
	if s.threshold != e.threshold || s.total != e.total || !e.holds(s.index, &s.value) {
		return fmt.Errorf("%w: %v", ErrAltered, s)
	}
	return nil
}
