package keyshare

import (
	"crypto"
	"fmt"
	"slices"
	"strings"

	"peerlink/node/pki"
)

// A RestoredKey is a root key restored from enough shares, but still encrypted with the
// passphrase: the sealed key, and the secret of its split. [Combine] makes it.
type RestoredKey struct {
	sealed *sealedKey
	secret shareValue
}

// Combine combines shares of one split, in any order. There may be more shares than the
// threshold; all of them are checked. At least one of them must have the sealed key.
//
// The error wraps [ErrDuplicate] if a share is given twice, and [ErrIncomplete] if no share
// has the sealed key. Combine also fails if there are too few shares, or shares of several
// splits, or if a share was altered. If single shares are the cause, the error has their
// numbers.
func Combine(shares []*Share) (*RestoredKey, error) {
	if len(shares) == 0 {
		return nil, fmt.Errorf("%w: none", errTooFew)
	}
	if err := CheckTogether(shares); err != nil {
		return nil, err
	}
	k := findSealedKey(shares)
	if k == nil {
		return nil, fmt.Errorf("%w: the sealed key is missing: type all lines of one page, not only the first %d", ErrIncomplete, ShareLines)
	}
	if len(shares) < k.threshold {
		return nil, fmt.Errorf("%w: %d of the %d that are needed", errTooFew, len(shares), k.threshold)
	}
	secret, err := recoverSecret(k.threshold, shares)
	if err != nil {
		return nil, err
	}
	return &RestoredKey{k, secret}, nil
}

// CheckTogether checks that shares are of one split, that none is given twice, and, if one
// of them has the sealed key, that none was altered. There may be fewer shares than the
// threshold. The error has the numbers of the shares concerned, and wraps [ErrDuplicate] if
// a share is given twice.
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
	k := findSealedKey(shares)
	if k == nil {
		return nil
	}
	for _, s := range shares {
		if err := s.check(k); err != nil {
			return err
		}
	}
	return nil
}

// findSealedKey returns the sealed key of the last share that has it, or nil.
func findSealedKey(shares []*Share) (k *sealedKey) {
	for _, s := range shares {
		if s.sealedKey != nil {
			k = s.sealedKey
		}
	}
	return k
}

// checkOneSplit fails if the shares are of several splits. The error lists the shares of each
// split.
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
func (r *RestoredKey) Node() pki.Identity { return r.sealed.node }

// Fingerprint returns the first half of the root key's [pki.Fingerprint], followed by
// "...".
func (r *RestoredKey) Fingerprint() string { return r.sealed.fingerprint.String() }

// String returns a description of the key without secrets.
func (r *RestoredKey) String() string {
	return fmt.Sprintf("root key of %v, from shares of split %v", r.Node(), r.sealed.splitID())
}

// Open decrypts the root key and returns it. The key must belong to pub, the public key in
// the node's root-ca.crt. Open takes about a second and 128 MiB of memory, and at most 1
// GiB even for manipulated shares. The error wraps [ErrOtherKey], [pki.ErrPassphrase] or
// [pki.ErrKeyKind]. After a wrong passphrase, Open can be called again.
func (r *RestoredKey) Open(passphrase []byte, pub crypto.PublicKey) (crypto.Signer, error) {
	if err := r.CheckKey(pub); err != nil {
		return nil, err
	}
	compact, err := r.sealed.open(&r.secret, passphrase)
	if err != nil {
		return nil, err
	}
	defer clear(compact)
	key, err := expandKey(compact, pub)
	if err != nil {
		return nil, fmt.Errorf("%w: the shares are those of %v, but do not restore the key with the fingerprint %v", ErrOtherKey, r.Node(), r.sealed.fingerprint)
	}
	return key, nil
}

// CheckKey checks that the root key belongs to pub, by its fingerprint. The error wraps
// [ErrOtherKey] or [pki.ErrKeyKind].
func (r *RestoredKey) CheckKey(pub crypto.PublicKey) error { return r.sealed.checkKey(pub) }

// CheckKey is like [RestoredKey.CheckKey]. It returns nil if the share has no sealed key.
func (s *Share) CheckKey(pub crypto.PublicKey) error {
	if s.sealedKey == nil {
		return nil
	}
	return s.sealedKey.checkKey(pub)
}

func (k *sealedKey) checkKey(pub crypto.PublicKey) error {
	if err := checkKind(pub); err != nil {
		return err
	}
	want, err := fingerprintOf(pub)
	if err != nil {
		return err
	}
	if want != k.fingerprint {
		return fmt.Errorf("%w: the shares are of the root key of %v with the fingerprint %v: expected shares of the key with the fingerprint %v", ErrOtherKey, k.node, k.fingerprint, want)
	}
	return nil
}

// Wipe clears the secret. Open cannot be called afterwards.
func (r *RestoredKey) Wipe() { clear(r.secret[:]) }
