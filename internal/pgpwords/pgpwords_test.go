package pgpwords

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

// The example that descriptions of the list have.
const (
	exampleHex   = "e58294f2e9a227486e8b061b31cc528fd7fa3f19"
	exampleWords = "topmost Istanbul Pluto vagabond treadmill Pacific brackish dictator goldfish Medusa " +
		"afflict bravado chatter revolver Dupont midsummer stopwatch whimsical cowbell bottomless"
)

// The words are those of other programs with this list, so that words can be compared with them.
func TestKnownWords(t *testing.T) {
	data, _ := hex.DecodeString(exampleHex)
	if got := strings.Join(Encode(data), " "); got != exampleWords {
		t.Error(got)
	}
	for _, text := range []string{exampleWords, strings.ToUpper(exampleWords), strings.ReplaceAll(exampleWords, " ", ",\n ")} {
		if got, err := Decode(text, len(data)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%q: %x, %v", text, got, err)
		}
	}
}

// Each of the 512 words stands for one byte at one kind of positions.
func TestWordsAreDistinct(t *testing.T) {
	if len(index()) != 512 {
		t.Errorf("%d different words", len(index()))
	}
	for value := range 256 {
		data := []byte{byte(value), byte(value)}
		if got, err := Decode(strings.Join(Encode(data), " "), 2); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%x: %x, %v", data, got, err)
		}
	}
}

// A word that is missing or there twice, and words that have changed places with the next one, are
// refused and named, at every position.
func TestMistakesAreNamed(t *testing.T) {
	const n = 12
	good := strings.Fields(exampleWords)[:n]
	refused := func(list []string, want string) {
		t.Helper()
		data, err := Decode(strings.Join(list, " "), n)
		if err == nil || data != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v\nwant an error with %s", list, err, want)
		}
	}
	for i, word := range good {
		missing := slices.Delete(slices.Clone(good), i, i+1)
		if i == n-1 {
			refused(missing, `the last word, after "`+good[n-2]+`", is missing`)
		} else {
			refused(missing, `a word is missing before `+strings.TrimSuffix(name(missing, i), ","))
		}
		twice := slices.Insert(slices.Clone(good), i, word)
		refused(twice, name(twice, i+1)+" is the same as the one before it")
		if i+1 < n {
			swapped := slices.Clone(good)
			swapped[i], swapped[i+1] = good[i+1], good[i]
			refused(swapped, name(swapped, i)+" and "+name(swapped, i+1)+" have changed places")
			again := slices.Clone(good)
			again[i+1] = word
			refused(again, name(again, i+1)+" is the same as the one before it")
		}
		unknown := slices.Clone(good)
		unknown[i] = "peerlink"
		refused(unknown, name(unknown, i)+" is not in the PGP word list")
		other := slices.Clone(good)
		other[i] = words()[1-i%2][7]
		refused(other, name(other, i)+" can not be there")
		if i > 0 {
			refused(good[:i], "expected 12")
		}
	}
	refused(nil, "0 words: expected 12")
	refused(strings.Fields(exampleWords), "20 words: expected 12")
	refused([]string{"aardvurk"}, "did you mean aardvark?")
}

// What is typed may be anything, and as long as a command line may be.
func TestDecodeIsBounded(t *testing.T) {
	for _, text := range []string{strings.Repeat("aardvark adroitness ", 200), strings.Repeat("x", 1<<20), "\xff\xfe\x00", strings.Repeat("é", 500)} {
		if data, err := Decode(text, 12); err == nil || len(err.Error()) > 400 {
			t.Errorf("%.20q: %x, %v", text, data, err)
		}
	}
}
