package keyshare

import (
	"crypto"
	"errors"
	"fmt"
	"time"

	"peerlink/node/pki"
)

// maxPassphrase is the maximum length of a passphrase in bytes, as in package pki.
const maxPassphrase = 1023

// Split makes total shares of a node's root key. threshold of them, together with the passphrase,
// restore the key: 2 ≤ threshold ≤ total ≤ 16. The passphrase must have 1 to 1023 bytes, and
// should be that of the key file. The shares contain the day of now in UTC.
//
// Split tests the shares before it returns: it parses the text of each, and restores the key
// from some of them. It takes a few seconds and 256 MiB of memory. Errors wrap
// [pki.ErrKeyKind] or [pki.ErrNotIdentity], or name the invalid argument.
func Split(key crypto.Signer, id pki.Identity, passphrase []byte, total, threshold int, now time.Time) ([]*Share, error) {
	return split(key, id, passphrase, total, threshold, now, defaultCost)
}

func split(key crypto.Signer, id pki.Identity, passphrase []byte, total, threshold int, now time.Time, cost int) ([]*Share, error) {
	if err := checkThreshold(threshold, total); err != nil {
		return nil, err
	}
	if len(passphrase) == 0 || len(passphrase) > maxPassphrase {
		return nil, fmt.Errorf("a passphrase of %d bytes cannot be used: expected 1 to %d", len(passphrase), maxPassphrase)
	}
	if err := id.Validate(); err != nil {
		return nil, err
	}
	pub := key.Public()
	if err := checkKind(pub); err != nil {
		return nil, err
	}
	if err := id.CheckKey(pub); err != nil {
		return nil, err
	}
	fp, err := fingerprintOf(pub)
	if err != nil {
		return nil, err
	}
	day, err := dayOf(now)
	if err != nil {
		return nil, err
	}
	compact, err := compactKeyOf(key)
	if err != nil {
		return nil, err
	}
	defer clear(compact)
	secret, values, err := newValues(threshold, total)
	if err != nil {
		return nil, err
	}
	defer clear(secret[:])
	h := header{node: id, fingerprint: fp, day: day, threshold: threshold, total: total, cost: cost}
	k, err := seal(h, values, &secret, compact, passphrase)
	if err != nil {
		return nil, err
	}
	shares := make([]*Share, total)
	for i := range shares {
		shares[i] = &Share{split: k.splitID(), threshold: threshold, total: total, index: i + 1, value: values[i], sealedKey: k}
	}
	if err := selfTest(shares, passphrase, pub); err != nil {
		return nil, fmt.Errorf("the shares of %v do not restore the key: %w", id, err)
	}
	return shares, nil
}

// selfTest tests new shares by parsing their text and restoring the key from them.
func selfTest(shares []*Share, passphrase []byte, pub crypto.PublicKey) error {
	var typed, scanned []*Share
	for _, s := range shares {
		a, err := Parse(s.Text())
		if err != nil {
			return err
		}
		b, err := Parse(s.QRText())
		if err != nil {
			return err
		}
		typed, scanned = append(typed, a), append(scanned, b)
	}
	t := shares[0].threshold
	first, err := Combine(typed[:t])
	if err != nil {
		return err
	}
	defer first.Wipe()
	last, err := Combine(scanned[len(scanned)-t:])
	if err != nil {
		return err
	}
	defer last.Wipe()
	if first.secret != last.secret {
		return errors.New("different shares have different secrets")
	}
	_, err = first.Open(passphrase, pub)
	return err
}
