package keyshare

import (
	"slices"
	"strings"
	"sync"

	"github.com/sethvargo/go-diceware/diceware"
)

// wordBits is what one word stands for.
const (
	wordBits  = 12
	wordCount = 1 << wordBits
	maxWord   = 7 // letters
	maxSlip   = 2 // the distance between what is meant and what is typed
)

// wordList returns the words in alphabetical order. The package comment says
// which they are.
var wordList = sync.OnceValue(func() []string {
	all := diceware.WordListEffLarge()
	var words []string
	for roll := 11111; roll <= 66666; roll++ {
		if w := all.WordAt(roll); w != "" && !strings.Contains(w, "-") {
			words = append(words, w)
		}
	}
	// Stable: the list comes in alphabetical order.
	slices.SortStableFunc(words, func(a, b string) int { return len(a) - len(b) })
	words = words[:wordCount]
	slices.Sort(words)
	return words
})

// wordIndex is the number that a word in lower case stands for; -1 if it is not
// in the list.
func wordIndex(word string) int {
	if i, ok := slices.BinarySearch(wordList(), word); ok {
		return i
	}
	return -1
}

// nearestWord is the one word of the list that was most probably meant, or "" if
// none is near, or several equally so.
func nearestWord(typed string) string {
	best, nearest := maxSlip+1, ""
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

// distance counts the letters that were left out, put in, changed, or exchanged
// with their neighbours between a word of the list and what was typed. Anything
// much longer than a word is far from all.
func distance(typed, word string) int {
	if len(typed) > 2*maxWord {
		return len(typed)
	}
	// Three rows of the table of distances between prefixes.
	var before, last, row [maxWord + 1]int
	for j := range row {
		row[j] = j
	}
	for i := range len(typed) {
		before, last = last, row
		row[0] = i + 1
		for j := range len(word) {
			changed := last[j]
			if typed[i] != word[j] {
				changed++
			}
			row[j+1] = min(changed, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && typed[i] == word[j-1] && typed[i-1] == word[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(word)]
}
