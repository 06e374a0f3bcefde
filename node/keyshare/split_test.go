package keyshare

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// Any T of N shares restore the key, whatever its kind. Fewer shares are refused,
// and interpolating their values does not give the secret.
func TestEverySubset(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		what             string
		key              func() crypto.Signer
		typ              nodetype.Type
		total, threshold int
	}{
		{"RSA 3072", rsa3072, nodetype.AccountingAuthority, 5, 3},
		{"RSA 4096", rsa4096, nodetype.CreditorsAgent, 3, 3},
		{"RSA with unlike primes", lopsided, nodetype.DebtorsAgent, 2, 2},
		{"P-256", p256, nodetype.DebtorsAgent, 4, 2},
		{"P-384", p384, nodetype.CreditorsAgent, 3, 2},
		{"P-521", p521, nodetype.AccountingAuthority, 3, 2},
	} {
		key := tt.key()
		id := nodeOf(t, tt.typ, key)
		shares, err := split(key, id, []byte(testPass), tt.total, tt.threshold, testNow, testCost)
		check(t, err)
		whole, err := Combine(shares)
		check(t, err)
		for set := range 1 << tt.total {
			var some []*Share
			for i, s := range shares {
				if set>>i&1 == 1 {
					some = append([]*Share{s}, some...)
				}
			}
			sealed, err := Combine(some)
			if n := bits.OnesCount(uint(set)); n < tt.threshold {
				if !errors.Is(err, errTooFew) {
					t.Errorf("%s: %d of %d shares: got %v, want ErrTooFew", tt.what, n, tt.threshold, err)
				}
				if n == 0 {
					continue
				}
				if secret, err := recoverSecret(n, some); err != nil || secret == whole.secret {
					t.Errorf("%s: %d of %d shares: %v, or they give the secret", tt.what, n, tt.threshold, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: shares %v: %v", tt.what, some, err)
				continue
			}
			if sealed.Node() != id {
				t.Errorf("%s: shares of %v, want %v", tt.what, sealed.Node(), id)
			}
			got, err := sealed.Open([]byte(testPass), key.Public())
			if err != nil {
				t.Errorf("%s: shares %v: %v", tt.what, some, err)
				continue
			}
			sig, err := pki.SignData(got, []byte("text"))
			check(t, err)
			if err := pki.VerifyData(key.Public(), []byte("text"), sig); err != nil {
				t.Errorf("%s: shares %v: another key: %v", tt.what, some, err)
			}
		}
	}
}

// Clearing the compact key, as Split does, does not change the key, which may be in use
// at the same time.
func TestCompactKeyIsCopied(t *testing.T) {
	for _, key := range []crypto.Signer{p256(), p521(), rsa3072()} {
		var held []byte
		switch key := key.(type) {
		case *ecdsa.PrivateKey:
			var err error
			held, err = key.Bytes()
			check(t, err)
		case *rsa.PrivateKey:
			held = key.Primes[0].Bytes()
		}
		want := slices.Clone(held)
		compact, err := compactKeyOf(key)
		check(t, err)
		clear(compact)
		if !slices.Equal(held, want) {
			t.Errorf("%T: the key was wiped with its compact key", key)
		}
	}
}

// OpenSSL accepts all parts of a restored key.
func TestRestoredForOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed: it has not checked the restored keys")
	}
	for _, key := range []crypto.Signer{rsa3072(), lopsided(), p256(), p521()} {
		sealed, err := Combine(sharesOf(t, key, 2, 2))
		check(t, err)
		restored, err := sealed.Open([]byte(testPass), key.Public())
		check(t, err)
		data, err := pki.EncodeKey(restored)
		check(t, err)
		dir := t.TempDir()
		check(t, os.WriteFile(filepath.Join(dir, "key.pem"), data, 0o600))
		run(t, dir, "openssl", "pkey", "-in", "key.pem", "-check", "-noout")
	}
}

// split checks the bounds of its arguments, and refuses a key that does not belong
// to the node.
func TestSplitRefuses(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	check(t, err)
	threePrimes := *rsa3072().(*rsa.PrivateKey)
	threePrimes.Primes = append(threePrimes.Primes, threePrimes.Primes[0])
	other := rsa3072()
	agent := nodeOf(t, nodetype.CreditorsAgent, p256())
	aa := pki.Identity{Type: nodetype.AccountingAuthority, ID: "1234abcd"}
	good := testPass
	for _, tt := range []struct {
		what             string
		key              crypto.Signer
		id               pki.Identity
		pass             string
		total, threshold int
		now              time.Time
		want             error
		errText          string
	}{
		{"one share", p256(), agent, good, 1, 1, testNow, nil, "expected 2 to 16"},
		{"17 shares", p256(), agent, good, 17, 2, testNow, nil, "expected 2 to 16"},
		{"a threshold of one", p256(), agent, good, 3, 1, testNow, nil, "expected 2 to 3"},
		{"a threshold above the total", p256(), agent, good, 3, 4, testNow, nil, "expected 2 to 3"},
		{"negative numbers", p256(), agent, good, -3, -4, testNow, nil, "expected 2 to 16"},
		{"no passphrase", p256(), agent, "", 3, 2, testNow, nil, "passphrase of 0 bytes"},
		{"a long passphrase", p256(), agent, strings.Repeat("x", 1024), 3, 2, testNow, nil, "passphrase of 1024 bytes"},
		{"another's key", other, agent, good, 3, 2, testNow, nil, "not derived from the root key"},
		{"no name", p256(), pki.Identity{}, good, 3, 2, testNow, pki.ErrNotIdentity, ""},
		{"a name in capitals", p256(), pki.Identity{Type: aa.Type, ID: "1234ABCD"}, good, 3, 2, testNow, pki.ErrNotIdentity, ""},
		{"Ed25519", ed, aa, good, 3, 2, testNow, pki.ErrKeyKind, ""},
		{"P-224", p224, aa, good, 3, 2, testNow, pki.ErrKeyKind, ""},
		{"three primes", &threePrimes, aa, good, 3, 2, testNow, pki.ErrKeyKind, "3 primes"},
		{"a time before 1970", p256(), aa, good, 3, 2, time.Unix(-1, 0), nil, "is the clock right?"},
		{"the 22nd century", p256(), aa, good, 3, 2, time.Date(2150, 1, 1, 0, 0, 0, 0, time.UTC), nil, "is the clock right?"},
	} {
		shares, err := split(tt.key, tt.id, []byte(tt.pass), tt.total, tt.threshold, tt.now, testCost)
		if err == nil || shares != nil {
			t.Errorf("%s: got %v", tt.what, shares)
		} else if tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.errText) {
			t.Errorf("%s: got %q, want %v with %q", tt.what, err, tt.want, tt.errText)
		}
	}
}

// A share of a key that was split with the default cost of scrypt reports the properties of
// the split.
func TestSplit(t *testing.T) {
	t.Parallel()
	key := p256()
	id := nodeOf(t, nodetype.CreditorsAgent, key)
	shares, err := Split(key, id, []byte(testPass), 3, 2, testNow.Add(11*time.Hour+59*time.Minute))
	check(t, err)
	s := shares[1]
	if s.sealedKey.cost != defaultCost {
		t.Errorf("scrypt with N=2^%d, want 2^%d", s.sealedKey.cost, defaultCost)
	}
	got := fmt.Sprint(s.Index(), s.Threshold(), s.Total(), s.HasSealedKey(), s.Node(), s.Date().Format(time.DateTime))
	if want := fmt.Sprint(2, 2, 3, true, id, "2026-11-23 00:00:00"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if print := pki.Fingerprint(key.Public()); !strings.HasPrefix(print, strings.TrimSuffix(s.Fingerprint(), "...")) || len(s.Fingerprint()) != 42 {
		t.Errorf("got the fingerprint %s, want the first half of %s", s.Fingerprint(), print)
	}
	own, err := Parse(strings.Join(numberedLines(s.Text())[:ShareLines], "\n"))
	check(t, err)
	if own.HasSealedKey() || own.Node() != (pki.Identity{}) || own.Fingerprint() != "" || !own.Date().IsZero() || own.SplitID() != s.SplitID() {
		t.Errorf("without the sealed key, the share has the node %v, the fingerprint %s and the date %v, want none of them", own.Node(), own.Fingerprint(), own.Date())
	}
}

// Two splits of one key have different secrets and different split IDs.
func TestSplitsAreNew(t *testing.T) {
	a, b := sharesOf(t, p256(), 2, 2), sharesOf(t, p256(), 2, 2)
	if a[0].value == b[0].value || a[0].split == b[0].split {
		t.Error("two splits have the same share value or the same split ID")
	}
}
