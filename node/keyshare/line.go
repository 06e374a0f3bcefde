package keyshare

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"peerlink/internal/excerpt"
)

// Sizes of one line of words ("Lines of words" in the package comment).
const (
	lineWords = 8
	lineData  = 10           // bytes
	lineBytes = lineData + 2 // with the checksum
)

// maxShown is the maximum length, in bytes, of a quoted mistyped word. The words of the list
// are much shorter.
const maxShown = 20

// lineError is the error for a mistyped line of words. It may quote words of the line and
// corrections, which are secret. It must be shown only to the person who types the line, and
// not be logged.
type lineError struct {
	// Line is the number of the line on the page, counted from 1.
	Line int
	// Problem describes the mistake, the expected form, and, if it can be determined or
	// guessed, the intended word.
	Problem string
}

// Error returns the number of the line and the problem, for example
// `line 7: "abandn" is not in the word list: did you mean "abandon"?`.
func (e *lineError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Problem) }

// CheckLine checks the form and the checksum of one line of a page, so that a mistake can be
// reported while a share is being typed. text may begin with the line's number. The error is
// a [*lineError].
func CheckLine(number int, text string) error {
	if number < 1 || number > maxLines {
		return &lineError{number, fmt.Sprintf("there is no such line: expected 1 to %d", maxLines)}
	}
	if len(text) > maxText {
		return &lineError{number, fmt.Sprintf("%d bytes: expected %d words", len(text), lineWords)}
	}
	given, words := splitLine(text)
	if given != 0 && given != number {
		return &lineError{number, fmt.Sprintf("got line %d", given)}
	}
	_, err := decodeLine(number, words)
	return err
}

// encodeLine returns 10 bytes as eight words.
func encodeLine(number int, data []byte) []string {
	raw := binary.BigEndian.AppendUint16(slices.Clone(data), checksum(number, data))
	words := make([]string, 0, lineWords)
	for ; len(raw) > 0; raw = raw[3:] {
		pair := int(raw[0])<<16 | int(raw[1])<<8 | int(raw[2])
		words = append(words, wordList()[pair>>wordBits], wordList()[pair%wordCount])
	}
	return words
}

// decodeLine decodes eight words, in lower case, to 10 bytes. The error is a [*lineError].
func decodeLine(number int, words []string) ([]byte, error) {
	if len(words) != lineWords {
		return nil, &lineError{number, fmt.Sprintf("words found: %d: expected %d", len(words), lineWords)}
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
		return nil, &lineError{number, line.explainUnknown(number, words, unknown)}
	case !line.checksumValid(number):
		return nil, &lineError{number, line.explainChecksum(number, words)}
	}
	raw := line.bytes()
	return raw[:lineData], nil
}

// splitLine returns the number at the beginning of a line, or 0, and the words of the line in
// lower case. All characters except letters and digits are separators.
func splitLine(text string) (number int, words []string) {
	words = strings.FieldsFunc(strings.ToLower(text), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	// A number with more digits is not the number of a line, but for example a year.
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

// A wordLine is a line of words as their indexes, with -1 for unknown words.
type wordLine [lineWords]int

func (l wordLine) bytes() (raw [lineBytes]byte) {
	for i := 0; i < lineWords; i += 2 {
		pair := l[i]<<wordBits | l[i+1]
		at := i / 2 * 3
		raw[at], raw[at+1], raw[at+2] = byte(pair>>16), byte(pair>>8), byte(pair)
	}
	return raw
}

// checksumValid reports whether the line has the checksum of a line with the given number.
func (l wordLine) checksumValid(number int) bool {
	raw := l.bytes()
	return checksum(number, raw[:lineData]) == binary.BigEndian.Uint16(raw[lineData:])
}

// repair returns the word that makes the checksum valid in place of the word at index i, or
// "" if there is no such word.
func (l wordLine) repair(number, i int) string {
	for v, word := range wordList() {
		l[i] = v
		if l.checksumValid(number) {
			return word
		}
	}
	return ""
}

// explainUnknown returns the message for a word that is not in the list, with the intended
// word if possible.
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

// explainChecksum returns the message for a wrong checksum, with its cause if there is
// exactly one possible simple cause: the line has another number, two words are exchanged,
// or a word was replaced with a similar one.
func (l wordLine) explainChecksum(number int, words []string) string {
	for n := 1; n <= maxLines; n++ {
		if l.checksumValid(n) {
			return fmt.Sprintf("these are the words of line %d", n)
		}
	}
	var found []string
	for i := range l {
		for j := range i {
			swapped := l
			swapped[i], swapped[j] = l[j], l[i]
			if swapped.checksumValid(number) {
				found = append(found, fmt.Sprintf("are %q and %q the other way round?", words[j], words[i]))
			}
		}
		if meant := l.repair(number, i); meant != "" && distance(words[i], meant) <= maxTypo {
			found = append(found, fmt.Sprintf("did you mean %q where %q is?", meant, words[i]))
		}
	}
	problem := "the checksum is wrong: one word or more are not those of the page"
	if len(found) == 1 {
		problem += ": " + found[0]
	}
	return problem
}

// checksum returns the CRC-16 described in the package comment.
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
