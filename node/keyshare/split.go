package keyshare

import (
	"crypto"
	"errors"
	"fmt"
	"time"

	"peerlink/node/pki"
)

// maxPassphrase is what package pki takes, in bytes.
const maxPassphrase = 1023

// Split makes shares of a node's root key, threshold of which restore it
// together with the passphrase: 2 ≤ threshold ≤ shares ≤ [MaxShares]. The
// passphrase, of 1 to 1023 bytes, is best that of the key file. The day of now,
// by UTC, is written on the shares.
//
// Before it returns, all shares have been read back from their text, and some of
// them opened: it takes a few seconds, and 256 MiB of memory. Errors wrap
// [pki.ErrKeyKind] or [pki.ErrNotIdentity], or tell which argument is wrong.
func Split(key crypto.Signer, id pki.Identity, passphrase []byte, shares, threshold int, now time.Time) ([]*Share, error) {
	return split(key, id, passphrase, shares, threshold, now, defaultCost)
}

func split(key crypto.Signer, id pki.Identity, passphrase []byte, total, threshold int, now time.Time, cost int) ([]*Share, error) {
	if err := checkNumbers(threshold, total); err != nil {
		return nil, err
	}
	if len(passphrase) == 0 || len(passphrase) > maxPassphrase {
		return nil, fmt.Errorf("a passphrase of %d bytes can not be used: expected 1 to %d", len(passphrase), maxPassphrase)
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
	essence, err := essenceOf(key)
	if err != nil {
		return nil, err
	}
	defer clear(essence)
	secret, values, err := newValues(threshold, total)
	if err != nil {
		return nil, err
	}
	defer clear(secret[:])
	h := header{node: id, fingerprint: fp, day: day, threshold: threshold, total: total, cost: cost}
	e, err := seal(h, values, &secret, essence, passphrase)
	if err != nil {
		return nil, err
	}
	shares := make([]*Share, total)
	for i := range shares {
		shares[i] = &Share{split: e.splitID(), threshold: threshold, total: total, index: i + 1, value: values[i], envelope: e}
	}
	if err := prove(shares, passphrase, pub); err != nil {
		return nil, fmt.Errorf("the shares of %v do not restore the key: %w", id, err)
	}
	return shares, nil
}

// prove does with new shares what somebody will do with them in many years.
func prove(shares []*Share, passphrase []byte, pub crypto.PublicKey) error {
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
