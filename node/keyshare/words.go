package keyshare

import (
	"slices"
	"strings"
	"sync"

	"github.com/sethvargo/go-diceware/diceware"
)

const (
	wordBits  = 12 // bits that one word encodes
	wordCount = 1 << wordBits
	maxWord   = 7 // letters
	maxTypo   = 2 // maximum distance between an intended and a typed word
)

// wordList returns the words in alphabetical order, as defined in the package comment.
var wordList = sync.OnceValue(func() []string {
	all := diceware.WordListEffLarge()
	var words []string
	for roll := 11111; roll <= 66666; roll++ {
		if w := all.WordAt(roll); w != "" && !strings.Contains(w, "-") {
			words = append(words, w)
		}
	}
	// The sort must be stable, so that words of the same length stay in alphabetical order.
	slices.SortStableFunc(words, func(a, b string) int { return len(a) - len(b) })
	words = words[:wordCount]
	slices.Sort(words)
	return words
})

// wordIndex returns the index of a word in lower case, or -1 if it is not in the list.
func wordIndex(word string) int {
	if i, ok := slices.BinarySearch(wordList(), word); ok {
		return i
	}
	return -1
}

// nearestWord returns the word of the list with the smallest distance to the typed word, or ""
// if the distance is greater than maxTypo or several words have the same distance.
func nearestWord(typed string) string {
	best, nearest := maxTypo+1, ""
	for _, w := range wordList() {
		switch d := distance(typed, w); {
		case d < best:
			best, nearest = d, w
		case d == best:
			nearest = ""
		}
	}
	return nearest
}

// distance returns the number of letters that were omitted, inserted, changed, or exchanged
// with their neighbours between a word of the list and the typed word. For typed words that are
// much longer than any word, the distance is large.
func distance(typed, word string) int {
	if len(typed) > 2*maxWord {
		return len(typed)
	}
	// Three rows of the table of distances between prefixes: the current row, and the two rows
	// above it.
	var above2, above, row [maxWord + 1]int
	for j := range row {
		row[j] = j
	}
	for i := range len(typed) {
		above2, above = above, row
		row[0] = i + 1
		for j := range len(word) {
			changed := above[j]
			if typed[i] != word[j] {
				changed++
			}
			row[j+1] = min(changed, above[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && typed[i] == word[j-1] && typed[i-1] == word[j] {
				row[j+1] = min(row[j+1], above2[j-1]+1)
			}
		}
	}
	return row[len(word)]
}
