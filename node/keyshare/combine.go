package keyshare

import (
	"crypto"
	"fmt"
	"slices"
	"strings"

	"peerlink/node/pki"
)

// Sealed is a root key as enough shares give it: sealed with the passphrase
// only. [Combine] makes it.
type Sealed struct {
	envelope *envelope
	secret   shareValue
}

// Combine puts shares of one split together, in any order. More than the
// threshold are welcome, and are checked as well. One of them at least must
// have the envelope.
//
// The error wraps [ErrMixed], [ErrDuplicate], [ErrTooFew], [ErrIncomplete] or
// [ErrAltered], and names the shares that are concerned.
func Combine(shares []*Share) (*Sealed, error) {
	if len(shares) == 0 {
		return nil, fmt.Errorf("%w: none", ErrTooFew)
	}
	if err := CheckTogether(shares); err != nil {
		return nil, err
	}
	e := envelopeOf(shares)
	if e == nil {
		return nil, fmt.Errorf("%w: the sealed key is missing: type all lines of one page, not only the first %d", ErrIncomplete, ShareLines)
	}
	if len(shares) < e.threshold {
		return nil, fmt.Errorf("%w: %d of the %d that are needed", ErrTooFew, len(shares), e.threshold)
	}
	secret, err := recoverSecret(e.threshold, shares)
	if err != nil {
		return nil, err
	}
	return &Sealed{e, secret}, nil
}

// CheckTogether checks that shares are of one split, that none is given twice, and
// that none was altered, as far as that can be known: they need not be enough, nor
// have the envelope. The error wraps [ErrNotShare], [ErrMixed], [ErrDuplicate] or
// [ErrAltered], and names the shares that are concerned.
func CheckTogether(shares []*Share) error {
	if slices.Contains(shares, nil) {
		return fmt.Errorf("%w: nil", ErrNotShare)
	}
	if err := checkOneSplit(shares); err != nil {
		return err
	}
	var seen [MaxShares + 1]bool
	for _, s := range shares {
		if seen[s.index] {
			return fmt.Errorf("%w: %v", ErrDuplicate, s)
		}
		seen[s.index] = true
	}
	e := envelopeOf(shares)
	if e == nil {
		return nil
	}
	for _, s := range shares {
		if err := s.check(e); err != nil {
			return err
		}
	}
	return nil
}

// envelopeOf returns the envelope of the last share that has one, or nil.
func envelopeOf(shares []*Share) (e *envelope) {
	for _, s := range shares {
		if s.envelope != nil {
			e = s.envelope
		}
	}
	return e
}

// checkOneSplit names the shares of each split if there are several.
func checkOneSplit(shares []*Share) error {
	indexes := make(map[splitID][]string)
	var ids []splitID
	for _, s := range shares {
		if indexes[s.split] == nil {
			ids = append(ids, s.split)
		}
		indexes[s.split] = append(indexes[s.split], fmt.Sprint(s.index))
	}
	if len(ids) <= 1 {
		return nil
	}
	var parts []string
	for _, id := range ids {
		parts = append(parts, fmt.Sprintf("split %v: share %s", id, strings.Join(indexes[id], ", ")))
	}
	return fmt.Errorf("%w: %s", ErrMixed, strings.Join(parts, "; "))
}

// Node is whose root key it is.
func (s *Sealed) Node() pki.Identity { return s.envelope.node }

// Fingerprint is the first half of the root key's [pki.Fingerprint], followed by
// "...".
func (s *Sealed) Fingerprint() string { return s.envelope.fingerprint.String() }

// String names the key without telling anything secret.
func (s *Sealed) String() string {
	return fmt.Sprintf("root key of %v, from shares of split %v", s.Node(), s.envelope.splitID())
}

// Open returns the root key, which is that of pub: the public key in the node's
// root-ca.crt. It takes about a second and 128 MiB of memory, and never more than
// 1 GiB, also for shares that others have made. The error wraps [ErrOtherKey],
// [pki.ErrPassphrase] or [pki.ErrKeyKind]; after a wrong passphrase, another can
// be tried.
func (s *Sealed) Open(passphrase []byte, pub crypto.PublicKey) (crypto.Signer, error) {
	if err := s.CheckKey(pub); err != nil {
		return nil, err
	}
	essence, err := s.envelope.open(&s.secret, passphrase)
	if err != nil {
		return nil, err
	}
	defer clear(essence)
	key, err := keyOf(essence, pub)
	if err != nil {
		return nil, fmt.Errorf("%w: what is sealed for %v is not the key with the fingerprint %v", ErrOtherKey, s.Node(), s.envelope.fingerprint)
	}
	return key, nil
}

// CheckKey checks that the sealed root key is that of pub, by its fingerprint. The
// error wraps [ErrOtherKey] or [pki.ErrKeyKind].
func (s *Sealed) CheckKey(pub crypto.PublicKey) error { return s.envelope.checkKey(pub) }

// CheckKey is [Sealed.CheckKey] for a share. One without an envelope passes.
func (s *Share) CheckKey(pub crypto.PublicKey) error {
	if s.envelope == nil {
		return nil
	}
	return s.envelope.checkKey(pub)
}

func (e *envelope) checkKey(pub crypto.PublicKey) error {
	if err := checkKind(pub); err != nil {
		return err
	}
	want, err := fingerprintOf(pub)
	if err != nil {
		return err
	}
	if want != e.fingerprint {
		return fmt.Errorf("%w: %v with the fingerprint %v: expected that with %v", ErrOtherKey, e.node, e.fingerprint, want)
	}
	return nil
}

// Wipe forgets the secret. Nothing can be opened afterwards.
func (s *Sealed) Wipe() { clear(s.secret[:]) }
