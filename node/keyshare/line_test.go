package keyshare

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The word list never changes and is as the package comment describes: with another
// list, printed shares could not be read.
func TestWordList(t *testing.T) {
	words := wordList()
	sum := sha256.Sum256([]byte(strings.Join(words, "\n") + "\n"))
	if got := hex.EncodeToString(sum[:]); got != "24e8c36d98d4a04663952ead1fabca3df4d70ed0a2304d25ae34345869d3a4d8" || len(words) != wordCount {
		t.Errorf("the list has changed: %d words, SHA-256 %s", len(words), got)
	}
	if !slices.IsSorted(words) || len(slices.Compact(slices.Clone(words))) != len(words) {
		t.Error("the list is not in order, or has a word twice")
	}
	ordinary := regexp.MustCompile(`^[a-z]{3,7}$`)
	for i, w := range words {
		if !ordinary.MatchString(w) || wordIndex(w) != i {
			t.Errorf("word %d is %q, with the index %d", i, w, wordIndex(w))
		}
	}
}

// The checksum is CRC-16/IBM-3740 (also called CCITT-FALSE), by its published
// check value.
func TestChecksum(t *testing.T) {
	if got := checksum('1', []byte("23456789")); got != 0x29B1 {
		t.Errorf("got %04x, want 29b1", got)
	}
}

// The checksum detects every wrong word, every exchange of two words, and every line
// in place of another, with certainty and not only with high probability.
func TestChecksumIsCertain(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 3 {
		number := 1 + random.IntN(maxLines)
		data := make([]byte, lineData)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		var line wordLine
		for i, w := range encodeLine(number, data) {
			line[i] = wordIndex(w)
		}
		if raw := line.bytes(); !line.checksumValid(number) || !bytes.Equal(raw[:lineData], data) {
			t.Fatalf("line %d: %v is not what was encoded", number, line)
		}
		for n := range maxLines + 1 {
			if n != number && line.checksumValid(n) {
				t.Errorf("line %d is valid as line %d", number, n)
			}
		}
		for i, right := range line {
			for wrong := range wordCount {
				changed := line
				changed[i] = wrong
				if wrong != right && changed.checksumValid(number) {
					t.Errorf("line %v is valid with word %d changed to %d", line, i+1, wrong)
				}
			}
			for j := range i {
				swapped := line
				swapped[i], swapped[j] = line[j], line[i]
				if swapped != line && swapped.checksumValid(number) {
					t.Errorf("line %v is valid with words %d and %d exchanged", line, i+1, j+1)
				}
			}
		}
	}
}

// The error for a mistyped line names the line and the wrong word, and suggests the
// right word if it can be determined.
func TestCheckLine(t *testing.T) {
	words := encodeLine(7, []byte("0123456789"))
	right := strings.Join(words, " ")
	if want := "copier blame crazed dismay crushed helmet dagger canal"; right != want {
		t.Fatalf("got %q, want %q", right, want)
	}
	for _, tt := range []struct{ line, errText string }{
		{right, ""},
		{"7 " + right, ""},
		{"  07.  " + strings.ToUpper(right), ""},
		{strings.ReplaceAll(right, " ", "-"), ""},
		{"8 " + right, "line 7: got line 8"},
		{"", "words found: 0: expected 8"},
		{strings.Join(words[:7], " "), "words found: 7: expected 8"},
		{right + " abacus", "words found: 9: expected 8"},
		{strings.Replace(right, "crazed", "crazd", 1), `"crazd" is not in the word list: did you mean "crazed"?`},
		{strings.Replace(right, "crazed", "craz3d", 1), `did you mean "crazed"?`},
		// Not similar to the right word, which follows from the checksum.
		{strings.Replace(right, "crazed", "x", 1), `"x" is not in the word list: did you mean "crazed"?`},
		{strings.Replace(right, "crushed", "депутат", 1), `did you mean "crushed"?`},
		// Two unknown words: only similar words can be suggested.
		{strings.Replace(strings.Replace(right, "crazed", "crazeed", 1), "copier", "copire", 1), `did you mean "copier"?`},
		{strings.Replace(strings.Replace(right, "crazed", "x", 1), "copier", "zzzzzzzzzzzzzzzzzzzz", 1), `line 7: "zzzzzzzzzzzzzzzzzzzz" is not in the word list`},
		{strings.Replace(right, "copier", strings.Repeat("y", 1000), 1), `"yyyyyyyyyyyyyyyyyyyy…" is not`},
		// Words that are in the list, but not on the page.
		{strings.Replace(right, "blame", "blade", 1), `did you mean "blame" where "blade" is?`},
		{strings.Replace(right, "blame crazed", "crazed blame", 1), `are "crazed" and "blame" the other way round?`},
		{strings.Replace(right, "crazed", "abacus", 1), "the checksum is wrong: one word or more are not those of the page"},
		{strings.Join(encodeLine(8, []byte("0123456789")), " "), "these are the words of line 8"},
	} {
		err := CheckLine(7, tt.line)
		var at *lineError
		switch {
		case tt.errText == "":
			if err != nil {
				t.Errorf("%q: %v", tt.line, err)
			}
		case !errors.As(err, &at) || at.Line != 7 || !strings.HasSuffix(err.Error(), tt.errText) && !strings.Contains(err.Error(), tt.errText+" in"):
			t.Errorf("%.100q: got %v, want %q", tt.line, err, tt.errText)
		}
	}
	for _, n := range []int{-1, 0, maxLines + 1, 263} {
		if err := CheckLine(n, right); err == nil {
			t.Errorf("CheckLine accepts the line number %d", n)
		}
	}
}
