// Package excerpt shortens what others have written, so that it can be quoted in
// an error message or a log: however long it is, it fills neither.
package excerpt

import "unicode/utf8"

// most is how many bytes of a text [Of] keeps: enough to recognize what was
// written, and for every ID, host and date to be seen as a whole.
const most = 100

// Of returns a text as it is quoted in an error message: the text itself, or of
// a long one the beginning.
func Of(s string) string { return Limit(s, most) }

// Limit returns the text, or, if it has more than most bytes, that number of them or
// a few less, and "…". It cuts between two characters, also when other parts of
// the text are not UTF-8.
func Limit(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for end := most; end >= 0 && end > most-utf8.UTFMax; end-- {
		if utf8.RuneStart(s[end]) {
			return s[:end] + "…"
		}
	}
	return s[:most] + "…" // there are no characters here
}
