package registry

import (
	"fmt"
	"strings"
	"unicode"

	"peerlink/internal/excerpt"
)

const (
	fingerprintPrefix = "sha256:"
	fingerprintDigits = 64
	// maxTyped is far more than a fingerprint with a space after each digit.
	maxTyped = 512
)

// ParseFingerprint reads a fingerprint as people type it, or copy it from
// elsewhere: in upper or lower case, with colons or white space anywhere, and
// with or without "sha256:" in front. It returns the form that [pki.Fingerprint]
// has, so that the two can be compared with ==. Errors wrap [ErrFingerprint].
func ParseFingerprint(typed string) (string, error) {
	if len(typed) > maxTyped {
		return "", fmt.Errorf("%w: %d characters: expected \"sha256:\" and %d hex digits", ErrFingerprint, len(typed), fingerprintDigits)
	}
	s := strings.ToLower(strings.TrimSpace(typed))
	s = strings.TrimPrefix(s, fingerprintPrefix)
	s = strings.Map(func(r rune) rune {
		if r == ':' || unicode.IsSpace(r) {
			return -1
		}
		return r
	}, s)
	s = fingerprintPrefix + s
	if err := checkFingerprint(s); err != nil {
		return "", err
	}
	return s, nil
}

// checkFingerprint reports whether s is a fingerprint in its one exact form.
func checkFingerprint(s string) error {
	digits, ok := strings.CutPrefix(s, fingerprintPrefix)
	if !ok || len(digits) != fingerprintDigits || strings.Trim(digits, "0123456789abcdef") != "" {
		return fmt.Errorf("%w: %q: expected \"sha256:\" and %d lowercase hex digits", ErrFingerprint, excerpt.Of(s), fingerprintDigits)
	}
	return nil
}
