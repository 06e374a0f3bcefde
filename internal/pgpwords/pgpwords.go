// Package pgpwords converts bytes to words that people can read to each other by telephone, and
// back, with the PGP word list.
//
// The list has two words for each byte: one of two syllables for bytes at even positions, and one of
// three syllables for bytes at odd positions, counted from 0. So a word that is missing, is there
// twice, or has changed places with the next one is noticed. The list is that of Patrick Juola and
// Philip Zimmermann, "Whole-Word Phonetic Distances and the PGPfone Alphabet" (1996), in the form of
// PGP. See https://en.wikipedia.org/wiki/PGP_word_list.
package pgpwords

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode"

	"peerlink/internal/excerpt"
)

// wordList has a line for each byte, in order: the word for even positions, and the one for odd positions.
//
//go:embed words.txt
var wordList string

// words returns the words for even and those for odd positions.
var words = sync.OnceValue(func() (lists [2][256]string) {
	fields := strings.Fields(wordList)
	for i := range 256 {
		lists[0][i], lists[1][i] = fields[2*i], fields[2*i+1]
	}
	return lists
})

// index returns a map from each word, in lower case, to its meaning.
var index = sync.OnceValue(func() map[string]meaning {
	m := make(map[string]meaning)
	for odd, list := range words() {
		for value, word := range list {
			m[strings.ToLower(word)] = meaning{byte(value), odd}
		}
	}
	return m
})

// meaning is what a word stands for.
type meaning struct {
	value byte
	odd   int // 1 if the word is for odd positions, 0 if it is for even ones
}

// Encode returns one word for each byte.
func Encode(data []byte) []string {
	encoded, lists := make([]string, len(data)), words()
	for i, b := range data {
		encoded[i] = lists[i%2][b]
	}
	return encoded
}

// maxText is the maximum length, in bytes, of a text that [Decode] reads.
const maxText = 2048

// Decode returns the n bytes whose words a text has, in upper or lower case. The words may be separated by
// any characters other than letters. The error names the words that are unknown, missing, there twice, or at the
// wrong place, by their numbers, which begin with 1.
func Decode(text string, n int) ([]byte, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("the text has %d bytes, more than the limit of %d: expected %d words", len(text), maxText, n)
	}
	typed := strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) })
	data := make([]byte, len(typed))
	misplaced := make([]bool, len(typed)+1)
	for i, word := range typed {
		m, known := index()[strings.ToLower(word)]
		if !known {
			return nil, fmt.Errorf("%s is not in the PGP word list%s", name(typed, i), suggestion(word))
		}
		data[i], misplaced[i] = m.value, m.odd != i%2
	}
	if i := slices.Index(misplaced, true); i >= 0 {
		return nil, misplacedError(typed, misplaced, i, n)
	}
	switch {
	case len(typed) == n-1 && n > 1:
		return nil, fmt.Errorf("the last word, after %q, is missing: %d words, expected %d", excerpt.Of(typed[n-2]), len(typed), n)
	case len(typed) == n+1:
		return nil, fmt.Errorf("the last word, %q, is one too many: %d words, expected %d", excerpt.Of(typed[n]), len(typed), n)
	case len(typed) != n:
		return nil, fmt.Errorf("%d words: expected %d", len(typed), n)
	}
	return data, nil
}

// misplacedError returns the error for a text in which the word at position i is the first misplaced one: a
// word for even positions at an odd position, or the other way round. n is the expected number of words, and
// misplaced has an additional element, false, at the end.
func misplacedError(typed []string, misplaced []bool, i, n int) error {
	word := name(typed, i)
	// The words after a missing one, or an additional one, are all misplaced. After two words that have
	// changed places, none is.
	shifted := i+2 < len(typed) && misplaced[i+1] && misplaced[i+2]
	switch {
	case i > 0 && strings.EqualFold(typed[i], typed[i-1]):
		return fmt.Errorf("%s is the same as the one before it", word)
	case !shifted && misplaced[i+1] && len(typed) == n:
		return fmt.Errorf("%s and %s have changed places", word, name(typed, i+1))
	case len(typed) < n && (misplaced[i+1] || i == len(typed)-1):
		return fmt.Errorf("a word is missing before word %d, %q", i+1, excerpt.Of(typed[i]))
	case len(typed) > n && (misplaced[i+1] || i == len(typed)-1):
		return fmt.Errorf("%s, or the word before it, is one too many", word)
	case shifted:
		return fmt.Errorf("%s can not be there: before it a word is missing, or one is there twice", word)
	}
	return fmt.Errorf("%s can not be there: expected a word of %d syllables", word, 2+i%2)
}

// name returns the number, which begins with 1, and the text of the word at position i, for an error.
func name(typed []string, i int) string {
	return fmt.Sprintf("word %d, %q,", i+1, excerpt.Of(typed[i]))
}

// maxSuggestions is the maximum number of words that an error suggests in the place of an unknown one.
const maxSuggestions = 3

// suggestion returns the words of the list that differ from word by at most two letters, as the end of
// an error, or "".
func suggestion(word string) string {
	if len(word) > 20 {
		return ""
	}
	var near []string
	for _, list := range words() {
		for _, known := range list {
			if distance(strings.ToLower(word), strings.ToLower(known)) <= 2 {
				near = append(near, known)
			}
		}
	}
	if len(near) == 0 || len(near) > maxSuggestions {
		return ""
	}
	return ": did you mean " + strings.Join(near, " or ") + "?"
}

// distance returns the number of bytes that have to be inserted, removed or replaced to turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
