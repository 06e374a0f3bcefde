// Package excerpt shortens untrusted text, so that it can be quoted in an error message or
// a log.
package excerpt

import "unicode/utf8"

// most is how many bytes of a text [Of] keeps: enough to recognize a text, and to show
// every ID, host and date in full.
const most = 100

// Of returns a text for use in an error message: the text itself, or the beginning of a
// long one.
func Of(s string) string { return Limit(s, most) }

// Limit returns s, or, if it has more than most bytes, "…" after its first most bytes, or
// up to three fewer: it cuts between two characters, also if other parts of the text are
// not UTF-8.
func Limit(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for end := most; end >= 0 && end > most-utf8.UTFMax; end-- {
		if utf8.RuneStart(s[end]) {
			return s[:end] + "…"
		}
	}
	return s[:most] + "…" // not UTF-8
}
