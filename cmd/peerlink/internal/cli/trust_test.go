package cli

import (
	"strings"
	"testing"
)

// A typed fingerprint confirms a key only if it is complete or has at least the last
// 20 digits: a key whose fingerprint ends in fewer given digits can be found by brute
// force. (For 12 digits, a graphics card needs hours, because one modulus gives many keys.)
func TestCompareTyped(t *testing.T) {
	const digits = "3b1c7f5c9f0a4d5e8e6f7a8b9c0d1e2f3a4b5c6d7e8f90a1b2c3d4e5f6a7b8c9"
	for typed, good := range map[string]bool{
		digits:                              true,
		"sha256:" + digits:                  true,
		"SHA256:" + strings.ToUpper(digits): true,
		"90a1b2c3d4e5f6a7b8c9":              true,
		"90a1 b2c3 d4e5 f6a7 b8c9":          true,
		"90:A1:B2:C3:D4:E5:F6:A7:B8:C9":     true,
		"0a1b2c3d4e5f6a7b8c9":               false, // 19 digits
		"d4e5f6a7b8c9":                      false,
		"b8c9":                              false,
		"":                                  false,
		"sha256:":                           false,
		"sha256sha256":                      false,
		"90a1b2c3d4e5f6a7b8c8":              false,
		"3b1c7f5c9f0a4d5e8e6f":              false, // the beginning
		"0" + digits:                        false,
		strings.Repeat("9", 64):             false,
		"--------------------":              false,
		digits[:63] + "\u0441":              false,
	} {
		if err := compareTyped(typed, "sha256:"+digits); (err == nil) != good {
			t.Errorf("%q: %v", typed, err)
		}
	}
}

// An error about a wrong or missing fingerprint does not show the bundle's
// fingerprint: users would copy it instead of comparing it with the one that they
// got from the peer.
func TestFingerprintIsNotShown(t *testing.T) {
	t.Chdir(t.TempDir())
	makeInputFiles(t)
	_, stdout, _ := runCLI(t, "bundle", "inspect", "--json", "other-aa.zip")
	_, fingerprint, _ := strings.Cut(stdout, `"sha256:`)
	fingerprint, _, _ = strings.Cut(fingerprint, `"`)
	if len(fingerprint) != 64 {
		t.Fatal(stdout)
	}
	for _, line := range []string{"", "--fingerprint sha256:" + strings.Repeat("0", 64), "--fingerprint 1234"} {
		code, _, stderr := runCLI(t, strings.Fields("-C peer peer sign other-aa.zip --passphrase-file pass "+line)...)
		if code == exitDone || strings.Contains(stderr, fingerprint[50:]) {
			t.Errorf("%s: exit code %d\n%s", line, code, stderr)
		}
	}
	if err := compareTyped(strings.Repeat("0", 64), "sha256:"+fingerprint); err == nil || strings.Contains(err.Error(), fingerprint[50:]) {
		t.Error(err)
	}
}
