package keyshare

import (
	"crypto"
	"fmt"
	"slices"
	"strings"

	"peerlink/node/pki"
)

// Sealed is a root key restored from enough shares, but still encrypted with the
// passphrase. It is made by [Combine].
type Sealed struct {
	envelope *envelope
	secret   shareValue
}

// Combine combines shares of one split, in any order. There may be more shares than the
// threshold; all of them are checked. At least one of them must have the envelope.
//
// The error wraps [errMixed], [ErrDuplicate], [errTooFew], [ErrIncomplete] or [errAltered],
// and has the numbers of the shares concerned.
func Combine(shares []*Share) (*Sealed, error) {
	if len(shares) == 0 {
		return nil, fmt.Errorf("%w: none", errTooFew)
	}
	if err := CheckTogether(shares); err != nil {
		return nil, err
	}
	e := envelopeOf(shares)
	if e == nil {
		return nil, fmt.Errorf("%w: the sealed key is missing: type all lines of one page, not only the first %d", ErrIncomplete, ShareLines)
	}
	if len(shares) < e.threshold {
		return nil, fmt.Errorf("%w: %d of the %d that are needed", errTooFew, len(shares), e.threshold)
	}
	secret, err := recoverSecret(e.threshold, shares)
	if err != nil {
		return nil, err
	}
	return &Sealed{e, secret}, nil
}

// CheckTogether checks that shares are of one split, that none is given twice, and, if one
// of them has the envelope, that none was altered. There may be fewer shares than the
// threshold. The error wraps [errNotShare], [errMixed], [ErrDuplicate] or [errAltered], and
// has the numbers of the shares concerned.
func CheckTogether(shares []*Share) error {
	if slices.Contains(shares, nil) {
		return fmt.Errorf("%w: nil", errNotShare)
	}
	if err := checkOneSplit(shares); err != nil {
		return err
	}
	var seen [maxShares + 1]bool
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

// checkOneSplit fails if the shares are of several splits. The error has the shares of each.
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
	return fmt.Errorf("%w: %s", errMixed, strings.Join(parts, "; "))
}

// Node returns the node to which the root key belongs.
func (s *Sealed) Node() pki.Identity { return s.envelope.node }

// Fingerprint returns the first half of the root key's [pki.Fingerprint], followed by
// "...".
func (s *Sealed) Fingerprint() string { return s.envelope.fingerprint.String() }

// String returns a description of the key without secrets.
func (s *Sealed) String() string {
	return fmt.Sprintf("root key of %v, from shares of split %v", s.Node(), s.envelope.splitID())
}

// Open decrypts the root key and returns it. The key must belong to pub, the public key in
// the node's root-ca.crt. Open takes about a second and 128 MiB of memory, and at most 1
// GiB even for manipulated shares. The error wraps [ErrOtherKey], [pki.ErrPassphrase] or
// [pki.ErrKeyKind]. After a wrong passphrase, Open can be called again.
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

// CheckKey checks that the sealed root key belongs to pub, by its fingerprint. The error
// wraps [ErrOtherKey] or [pki.ErrKeyKind].
func (s *Sealed) CheckKey(pub crypto.PublicKey) error { return s.envelope.checkKey(pub) }

// CheckKey is like [Sealed.CheckKey]. It returns nil if the share has no envelope.
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

// Wipe clears the secret. Open can not be called afterwards.
func (s *Sealed) Wipe() { clear(s.secret[:]) }
