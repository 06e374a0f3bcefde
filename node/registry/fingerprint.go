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
	// maxTyped is the maximum length, in bytes, of a typed fingerprint, far more than a
	// fingerprint with a space after each digit.
	maxTyped = 512
)

// ParseFingerprint parses a typed or copied fingerprint: in upper or lower case, with colons or
// white space anywhere, and with or without "sha256:" at the beginning. It returns the
// fingerprint in the form of [pki.Fingerprint], for comparison with ==.
func ParseFingerprint(typed string) (string, error) {
	if len(typed) > maxTyped {
		return "", fmt.Errorf("%w: %d characters: expected \"sha256:\" and %d hex digits", errFingerprint, len(typed), fingerprintDigits)
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

// checkFingerprint checks that s is a fingerprint in the form of [pki.Fingerprint].
func checkFingerprint(s string) error {
	digits, ok := strings.CutPrefix(s, fingerprintPrefix)
	if !ok || len(digits) != fingerprintDigits || strings.Trim(digits, "0123456789abcdef") != "" {
		return fmt.Errorf("%w: %q: expected \"sha256:\" and %d lowercase hex digits", errFingerprint, excerpt.Of(s), fingerprintDigits)
	}
	return nil
}
