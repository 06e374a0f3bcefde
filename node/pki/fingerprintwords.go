package pki

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"strings"

	"peerlink/internal/pgpwords"
)

// FingerprintWordCount is the number of words by which people compare keys: 96 bits. Nobody can
// generate keys until one has the words of another node's key.
const FingerprintWordCount = 12

// FingerprintWords returns the last 12 bytes of a key's [Fingerprint], as words of the PGP word list,
// which people can read to each other by telephone. They are the last bytes, because an agent's ID, which
// people see in other places, has the first 16. FingerprintWords returns nil for a key that crypto/x509
// can not encode.
func FingerprintWords(pub crypto.PublicKey) []string {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil
	}
	sum := sha256.Sum256(spki)
	return pgpwords.Encode(sum[len(sum)-FingerprintWordCount:])
}

// ParseFingerprintWords returns the [FingerprintWords] in a text that a person has typed: in upper or
// lower case, with anything that is no letter between them. The error names words that are unknown,
// missing, there twice, or at the wrong place.
func ParseFingerprintWords(text string) ([]string, error) {
	data, err := pgpwords.Decode(text, FingerprintWordCount)
	if err != nil {
		return nil, err
	}
	return pgpwords.Encode(data), nil
}

// CompareFingerprintWords returns an error if words, from [ParseFingerprintWords], are not the
// [FingerprintWords] of a key. The error names two words that have changed places, or the word that
// differs if only one does. It has no word of the key that is not among words, because people could copy
// that instead of asking for it again.
func CompareFingerprintWords(words []string, pub crypto.PublicKey) error {
	want := FingerprintWords(pub)
	if len(words) != FingerprintWordCount || len(want) != FingerprintWordCount {
		return fmt.Errorf("%d words: expected %d", len(words), FingerprintWordCount)
	}
	var wrong []int
	for i, word := range words {
		if !strings.EqualFold(word, want[i]) {
			wrong = append(wrong, i)
		}
	}
	name := func(i int) string { return fmt.Sprintf("word %d, %q,", i+1, words[i]) }
	switch {
	case len(wrong) == 0:
		return nil
	case len(wrong) == 1:
		return fmt.Errorf("%s differs", name(wrong[0]))
	case len(wrong) == 2 && words[wrong[0]] == want[wrong[1]] && words[wrong[1]] == want[wrong[0]]:
		return fmt.Errorf("%s and %s have changed places", name(wrong[0]), name(wrong[1]))
	}
	return fmt.Errorf("%d of %d words differ", len(wrong), len(words))
}
