package cli

import (
	"strings"
	"testing"
)

// What a person types confirms a fingerprint only if it is the whole, or at least
// the last 12 digits: a key whose fingerprint ends in fewer given digits is
// found by trying, in a moment.
func TestCompareTyped(t *testing.T) {
	const digits = "3b1c7f5c9f0a4d5e8e6f7a8b9c0d1e2f3a4b5c6d7e8f90a1b2c3d4e5f6a7b8c9"
	for typed, good := range map[string]bool{
		digits:                              true,
		"sha256:" + digits:                  true,
		"SHA256:" + strings.ToUpper(digits): true,
		"d4e5f6a7b8c9":                      true,
		"d4e5 f6a7 b8c9":                    true,
		"D4:E5:F6:A7:B8:C9":                 true,
		"4e5f6a7b8c9":                       false, // 11 digits
		"b8c9":                              false,
		"":                                  false,
		"sha256:":                           false,
		"sha256sha256":                      false,
		"d4e5f6a7b8c8":                      false,
		"3b1c7f5c9f0a":                      false, // the beginning
		"0" + digits:                        false,
		strings.Repeat("9", 64):             false,
		"------------":                      false,
		digits[:63] + "\u0441":              false,
	} {
		if err := compareTyped(typed, "sha256:"+digits); (err == nil) != good {
			t.Errorf("%q: %v", typed, err)
		}
	}
}
