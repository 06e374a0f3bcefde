// Package excerpt shortens untrusted text, so that it can be quoted in an error message or
// a log.
package excerpt

import "unicode/utf8"

// ofLimit is how many bytes of a text [Of] keeps: enough to recognize a text, and to show
// every ID, host and date in full.
const ofLimit = 100

// Of returns a text for use in an error message: the text itself, or the beginning of a
// long one.
func Of(s string) string { return Limit(s, ofLimit) }

// Limit returns s, or, if it has more than n bytes, "…" after its first n bytes, or up to
// three fewer: it cuts between two characters, also if other parts of the text are
// not UTF-8.
func Limit(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for end := n; end >= 0 && end > n-utf8.UTFMax; end-- {
		if utf8.RuneStart(s[end]) {
			return s[:end] + "…"
		}
	}
	return s[:n] + "…" // not UTF-8
}
