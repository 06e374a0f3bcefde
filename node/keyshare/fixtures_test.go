package keyshare

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// testPass is the passphrase of all tests, and testCost their cost of scrypt.
const (
	testPass = "correct horse battery staple"
	testCost = minCost
)

var testNow = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// Keys are made once: making RSA keys takes long with the race detector.
var (
	rsa3072 = sync.OnceValue(func() crypto.Signer { return mustKey(pki.RSA3072) })
	rsa4096 = sync.OnceValue(func() crypto.Signer { return mustKey(pki.RSA4096) })
	p256    = sync.OnceValue(func() crypto.Signer { return mustKey(pki.P256) })
	p384    = sync.OnceValue(func() crypto.Signer { return mustKey(pki.P384) })
	p521    = sync.OnceValue(func() crypto.Signer {
		key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
		if err != nil {
			panic(err)
		}
		return key
	})
	// Primes of different lengths, the larger one first.
	lopsided = sync.OnceValue(func() crypto.Signer {
		for {
			p, errP := rand.Prime(rand.Reader, 1100)
			q, errQ := rand.Prime(rand.Reader, 948)
			if errP != nil || errQ != nil {
				panic("no primes")
			}
			pub := rsa.PublicKey{N: p.Mul(p, q), E: 65537}
			if key, err := expandRSAKey(q.Bytes(), &pub); err == nil && pub.N.BitLen() == 2048 {
				return key
			}
		}
	})
)

func mustKey(kind pki.KeyKind) crypto.Signer {
	key, err := pki.GenerateKey(kind)
	if err != nil {
		panic(err)
	}
	return key
}

// nodeOf returns the identity of a node with the given root key.
func nodeOf(t testing.TB, typ nodetype.Type, key crypto.Signer) pki.Identity {
	t.Helper()
	if !typ.IDDerived() {
		return pki.Identity{Type: typ, ID: "1234abcd"}
	}
	id, err := pki.DerivedID(key.Public())
	check(t, err)
	return pki.Identity{Type: typ, ID: id}
}

// sharesOf splits a key with a low cost of scrypt.
func sharesOf(t testing.TB, key crypto.Signer, total, threshold int) []*Share {
	t.Helper()
	shares, err := split(key, nodeOf(t, nodetype.CreditorsAgent, key), []byte(testPass), total, threshold, testNow, testCost)
	check(t, err)
	return shares
}

// ownOnly returns the share as it is if only its own lines are typed, without the
// sealed key.
func ownOnly(s *Share) *Share {
	own := *s
	own.sealedKey = nil
	return &own
}

// sameShare reports whether both shares have the same content.
func sameShare(a, b *Share) bool {
	return slices.Equal(a.encode(), b.encode()) && a.HasSealedKey() == b.HasSealedKey() &&
		(!a.HasSealedKey() || slices.Equal(a.sealedKey.raw, b.sealedKey.raw))
}

// numberedLines returns the numbered lines of words in a text.
func numberedLines(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		if n, _ := splitLine(line); n > 0 {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// wordsOf returns the words of a line, without its number.
func wordsOf(line string) []string {
	_, words := splitLine(line)
	return words
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
