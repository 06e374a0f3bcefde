package keyshare

import (
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// Combine refuses shares that do not belong together, and its error names the
// shares.
func TestCombineRefuses(t *testing.T) {
	ours, others := sharesOf(t, p256(), 4, 3), sharesOf(t, p256(), 4, 3)
	altered := *ours[1]
	altered.value = ours[0].value
	renumbered := *ownOnly(ours[1])
	renumbered.index = 4
	easier := *ownOnly(ours[1])
	easier.threshold = 2
	for _, tt := range []struct {
		what    string
		shares  []*Share
		want    error
		errText string
	}{
		{"none", nil, errTooFew, ""},
		{"nil", []*Share{nil}, errNotShare, ""},
		{"too few", ours[:2], errTooFew, "2 of the 3"},
		{"one twice", []*Share{ours[0], ours[1], ours[0]}, ErrDuplicate, ours[0].String()},
		{"one scanned and typed", []*Share{ours[0], ours[1], ownOnly(ours[0])}, ErrDuplicate, ours[0].String()},
		{"a share of another split", []*Share{ours[0], others[1], ours[2]}, errMixed,
			fmt.Sprintf("split %s: share 1, 3; split %s: share 2", ours[0].SplitID(), others[0].SplitID())},
		{"an additional share of another split", append(slices.Clone(ours[:3]), ownOnly(others[3])), errMixed, others[3].SplitID()},
		{"no sealed key", []*Share{ownOnly(ours[0]), ownOnly(ours[1]), ownOnly(ours[2])}, ErrIncomplete, "all lines of one page"},
		{"altered value", []*Share{ours[0], &altered, ours[2]}, errAltered, altered.String()},
		{"an additional altered share", []*Share{ours[0], ours[2], ours[3], &altered}, errAltered, altered.String()},
		{"altered index", []*Share{ours[0], &renumbered, ours[2]}, errAltered, renumbered.String()},
		{"altered threshold", []*Share{&easier, ours[2]}, errAltered, easier.String()},
	} {
		sealed, err := Combine(tt.shares)
		if sealed != nil || !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.errText) {
			t.Errorf("%s: got %v, want %v with %q", tt.what, err, tt.want, tt.errText)
		}
	}
	// Of all shares but one, the first lines are enough.
	sealed, err := Combine([]*Share{ownOnly(ours[3]), ours[0], ownOnly(ours[2])})
	check(t, err)
	_, err = sealed.Open([]byte(testPass), p256().Public())
	check(t, err)
}

// Open returns the key only with the right passphrase and the expected public key,
// and its errors distinguish the two causes.
func TestOpenRefuses(t *testing.T) {
	ed, _, err := ed25519.GenerateKey(nil)
	check(t, err)
	shares := sharesOf(t, rsa3072(), 3, 2)
	sealed, err := Combine(shares)
	check(t, err)
	for _, tt := range []struct {
		what string
		pass string
		pub  crypto.PublicKey
		want error
	}{
		{"wrong passphrase", "wrong", rsa3072().Public(), pki.ErrPassphrase},
		{"no passphrase", "", rsa3072().Public(), pki.ErrPassphrase},
		{"another node's key", testPass, rsa4096().Public(), ErrOtherKey},
		{"a key of another kind", testPass, p256().Public(), ErrOtherKey},
		{"a key that no node has", testPass, ed, pki.ErrKeyKind},
	} {
		if key, err := sealed.Open([]byte(tt.pass), tt.pub); key != nil || !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.what, err, tt.want)
		}
	}
	_, err = sealed.Open([]byte(testPass), rsa3072().Public())
	check(t, err)
	sealed.Wipe()
	if key, err := sealed.Open([]byte(testPass), rsa3072().Public()); err == nil {
		t.Errorf("after Wipe: got %T", key)
	}
}

// If an attacker makes shares with the fingerprint of a node's key, Open never
// returns a key other than the node's.
func TestForgedSealedKey(t *testing.T) {
	for what, forge := range map[string]struct{ victim, own crypto.Signer }{
		"ECDSA":               {p256(), mustKey(pki.P256)},
		"RSA":                 {rsa3072(), rsa4096()},
		"RSA, ECDSA's scalar": {rsa3072(), p256()},
		"ECDSA, RSA's prime":  {p256(), rsa3072()},
	} {
		pub := forge.victim.Public()
		compact, err := compactKeyOf(forge.own)
		check(t, err)
		for _, compact := range [][]byte{compact, {0}, {1}, {2}, make([]byte, 32)} {
			secret, values, err := newValues(2, 2)
			check(t, err)
			fp, err := fingerprintOf(pub)
			check(t, err)
			h := header{node: nodeOf(t, nodetype.DebtorsAgent, forge.victim), fingerprint: fp, threshold: 2, total: 2, cost: testCost}
			e, err := seal(h, values, &secret, compact, []byte(testPass))
			check(t, err)
			sealed := &RestoredKey{e, secret}
			if key, err := sealed.Open([]byte(testPass), pub); key != nil || !errors.Is(err, ErrOtherKey) {
				t.Errorf("%s: got %v, want ErrOtherKey", what, err)
			}
		}
	}
	// Zeros are not a prime of the modulus.
	pub := rsa3072().Public()
	n := pub.(interface{ Size() int }).Size()
	if key, err := expandKey(make([]byte, n), pub); key != nil || err == nil {
		t.Errorf("zeros: got %v", err)
	}
}

// A share or a key that is formatted by package fmt, for example by mistake, does
// not reveal the secret.
func TestStringsAreNotSecret(t *testing.T) {
	shares := sharesOf(t, p256(), 2, 2)
	sealed, err := Combine(shares)
	check(t, err)
	for _, v := range []any{shares[0], shares, sealed} {
		for _, format := range []string{"%v", "%s", "%+v"} {
			got := fmt.Sprintf(format, v)
			if !strings.Contains(got, shares[0].SplitID()) || len(got) > 150 {
				t.Errorf("%s of %T: %s", format, v, got)
			}
		}
	}
}
