package pki_test

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"peerlink/internal/pgpwords"
	"peerlink/node/pki"
)

// The words are the last 96 bits of the fingerprint, so that a key with the same words can not be found,
// and nothing but all of them in their order is accepted.
func TestFingerprintWords(t *testing.T) {
	key, err := pki.GenerateKey(pki.P256)
	if err != nil {
		t.Fatal(err)
	}
	digits := strings.TrimPrefix(pki.Fingerprint(key.Public()), "sha256:")
	last, err := hex.DecodeString(digits[len(digits)-24:])
	if err != nil {
		t.Fatal(err)
	}
	want := pki.FingerprintWords(key.Public())
	if !slices.Equal(want, pgpwords.Encode(last)) {
		t.Fatalf("%q: expected the words of %x", want, last)
	}
	words, err := pki.ParseFingerprintWords(strings.ToUpper(strings.Join(want, "-")))
	if err != nil || pki.CompareFingerprintWords(words, key.Public()) != nil {
		t.Errorf("%q, %v", words, err)
	}
	refused := func(words []string, named ...string) {
		t.Helper()
		err := pki.CompareFingerprintWords(words, key.Public())
		if err == nil {
			t.Fatalf("%q was accepted", words)
		}
		for _, text := range named {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%v: expected %s", err, text)
			}
		}
		for i, word := range want {
			if !slices.Contains(words, word) && strings.Contains(err.Error(), word) {
				t.Errorf("%v: word %d of the key is shown", err, i+1)
			}
		}
	}
	for i := range want {
		changed := slices.Clone(last)
		changed[i]++
		refused(pgpwords.Encode(changed), fmt.Sprintf("word %d, %q, differs", i+1, pgpwords.Encode(changed)[i]))
		for j := range i {
			if (i-j)%2 == 0 && last[i] != last[j] { // others are refused by ParseFingerprintWords
				swapped := slices.Clone(last)
				swapped[i], swapped[j] = last[j], last[i]
				refused(pgpwords.Encode(swapped), "have changed places", want[i], want[j])
			}
		}
		refused(want[:i])
	}
	refused(nil)
	refused(append(slices.Clone(want), want...))
	other, err := pki.GenerateKey(pki.P256)
	if err != nil {
		t.Fatal(err)
	}
	refused(pki.FingerprintWords(other.Public()), "words differ")
	if words := pki.FingerprintWords("no key"); words != nil {
		t.Errorf("%q for what is no key", words)
	}
}
