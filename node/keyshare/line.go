package keyshare

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"peerlink/internal/excerpt"
)

// One line of words ("Lines of words" in the package comment).
const (
	lineWords = 8
	lineData  = 10           // bytes
	lineBytes = lineData + 2 // with the checksum
)

// maxShown bounds what is shown of one word that was typed, in bytes. Those of the
// list are shorter by far.
const maxShown = 20

// LineError describes what is wrong with a line of words as it was typed. It may
// quote words of that line, and what they should have been, so it is for the
// eyes of the one who types, and not for logs.
type LineError struct {
	// Line is the number of the line on the page, counted from 1.
	Line int
	// Problem says what was found, what was expected, and if it can be known
	// or guessed, which word was meant.
	Problem string
}

// Error has the number of the line and the problem:
// `line 7: "abandn" is not in the word list: did you mean "abandon"?`.
func (e *LineError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Problem) }

// CheckLine reports whether the text can be the given line of a page, so that
// the person who types one learns of a mistake at once. The line's number may be in front of
// the words or not. The error is a [*LineError].
func CheckLine(number int, text string) error {
	if number < 1 || number > maxLines {
		return &LineError{number, fmt.Sprintf("there is no such line: expected 1 to %d", maxLines)}
	}
	if len(text) > maxText {
		return &LineError{number, fmt.Sprintf("%d bytes: expected %d words", len(text), lineWords)}
	}
	given, words := splitLine(text)
	if given != 0 && given != number {
		return &LineError{number, fmt.Sprintf("got line %d", given)}
	}
	_, err := decodeLine(number, words)
	return err
}

// encodeLine writes 10 bytes as eight words.
func encodeLine(number int, data []byte) []string {
	raw := binary.BigEndian.AppendUint16(slices.Clone(data), checksum(number, data))
	words := make([]string, 0, lineWords)
	for ; len(raw) > 0; raw = raw[3:] {
		two := int(raw[0])<<16 | int(raw[1])<<8 | int(raw[2])
		words = append(words, wordList()[two>>wordBits], wordList()[two%wordCount])
	}
	return words
}

// decodeLine reads eight words, in lower case, back to 10 bytes. The error is a
// [*LineError].
func decodeLine(number int, words []string) ([]byte, error) {
	if len(words) != lineWords {
		return nil, &LineError{number, fmt.Sprintf("words found: %d: expected %d", len(words), lineWords)}
	}
	var line wordLine
	unknown := 0
	for i, w := range words {
		line[i] = wordIndex(w)
		if line[i] < 0 {
			unknown++
		}
	}
	switch {
	case unknown > 0:
		return nil, &LineError{number, line.explainUnknown(number, words, unknown)}
	case !line.fits(number):
		return nil, &LineError{number, line.explainChecksum(number, words)}
	}
	raw := line.bytes()
	return raw[:lineData], nil
}

// splitLine returns the number in front of a line, or 0, and its words, in lower
// case. Whatever is not a letter or a digit stands between words.
func splitLine(text string) (number int, words []string) {
	words = strings.FieldsFunc(strings.ToLower(text), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	// A number of more digits is something else, such as a year.
	if len(words) < 2 || len(words[0]) > 3 {
		return 0, words
	}
	for _, c := range []byte(words[0]) {
		if c < '0' || c > '9' {
			return 0, words
		}
		number = number*10 + int(c-'0')
	}
	if number == 0 {
		return 0, words
	}
	return number, words[1:]
}

// A wordLine is a line of words by their indexes; -1 for what is not a word.
type wordLine [lineWords]int

func (l wordLine) bytes() (raw [lineBytes]byte) {
	for i := 0; i < lineWords; i += 2 {
		two := l[i]<<wordBits | l[i+1]
		at := i / 2 * 3
		raw[at], raw[at+1], raw[at+2] = byte(two>>16), byte(two>>8), byte(two)
	}
	return raw
}

func (l wordLine) fits(number int) bool {
	raw := l.bytes()
	return checksum(number, raw[:lineData]) == binary.BigEndian.Uint16(raw[lineData:])
}

// repair returns the only word at position i with which the line fits, if all
// others are right; "" if there is none.
func (l wordLine) repair(number, i int) string {
	for v, word := range wordList() {
		l[i] = v
		if l.fits(number) {
			return word
		}
	}
	return ""
}

// explainUnknown says which word is not in the list, and which was meant.
func (l wordLine) explainUnknown(number int, words []string, unknown int) string {
	i := slices.Index(l[:], -1)
	var meant string
	if unknown == 1 {
		meant = l.repair(number, i)
	} else {
		meant = nearestWord(words[i])
	}
	problem := fmt.Sprintf("%q is not in the word list", excerpt.Limit(words[i], maxShown))
	if meant != "" {
		problem += fmt.Sprintf(": did you mean %q?", meant)
	}
	return problem
}

// explainChecksum looks for one slip that explains why the checksum is wrong:
// the line of another number, two words exchanged, or one word taken for a
// similar one. With more than one explanation it gives none.
func (l wordLine) explainChecksum(number int, words []string) string {
	for n := 1; n <= maxLines; n++ {
		if l.fits(n) {
			return fmt.Sprintf("these are the words of line %d", n)
		}
	}
	var found []string
	for i := range l {
		for j := range i {
			swapped := l
			swapped[i], swapped[j] = l[j], l[i]
			if swapped.fits(number) {
				found = append(found, fmt.Sprintf("are %q and %q the other way round?", words[j], words[i]))
			}
		}
		if meant := l.repair(number, i); meant != "" && distance(words[i], meant) <= maxSlip {
			found = append(found, fmt.Sprintf("did you mean %q where %q is?", meant, words[i]))
		}
	}
	problem := "the checksum is wrong: one word or more are not those of the page"
	if len(found) == 1 {
		problem += ": " + found[0]
	}
	return problem
}

// checksum is the CRC-16 of the package comment.
func checksum(number int, data []byte) uint16 {
	crc := uint16(0xffff)
	update := func(b byte) {
		crc ^= uint16(b) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	update(byte(number))
	for _, b := range data {
		update(b)
	}
	return crc
}
