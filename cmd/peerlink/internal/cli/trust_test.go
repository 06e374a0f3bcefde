package cli

import (
	"slices"
	"strings"
	"testing"

	"peerlink/node/nodetest"
	"peerlink/node/pki"
)

// A typed fingerprint confirms a key only if it is complete, or has all of its words, or at least the last
// 24 digits: a key whose fingerprint ends in fewer given digits can be found by brute
// force. (For 12 digits, a graphics card needs hours, because one modulus gives many keys.)
func TestCompareTyped(t *testing.T) {
	key, err := pki.GenerateKey(pki.P256)
	if err != nil {
		t.Fatal(err)
	}
	root := key.Public()
	digits := strings.TrimPrefix(pki.Fingerprint(root), "sha256:")
	last := digits[40:]
	words := pki.FingerprintWords(root)
	other := "0"
	if digits[63] == '0' {
		other = "1"
	}
	for typed, good := range map[string]bool{
		digits:                              true,
		"sha256:" + digits:                  true,
		"SHA256:" + strings.ToUpper(digits): true,
		last:                                true,
		last[:4] + " " + last[4:]:           true,
		strings.ToUpper(last[:2] + ":" + last[2:]): true,
		last[1:]:                false, // 23 digits
		last[12:]:               false,
		last[20:]:               false,
		"":                      false,
		"sha256:":               false,
		"sha256sha256":          false,
		last[:23] + other:       false,
		digits[:24]:             false, // the beginning
		"0" + digits:            false,
		strings.Repeat("9", 64): false,
		"--------------------":  false,
		digits[:63] + "\u0441":  false,

		strings.Join(words, " "):                                         true,
		strings.ToUpper(strings.Join(words, ", ")):                       true,
		strings.Join(words[:11], " "):                                    false,
		strings.Join(words[2:], " "):                                     false,
		strings.Join(append(slices.Clone(words[2:]), words[:2]...), " "): false,
		strings.Join(words, " ") + " aardvark":                           false,
		strings.Join(words, ""):                                          false,
		"aardvark":                                                       false,
	} {
		if err := compareTyped(typed, root); (err == nil) != good {
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
	root := nodetest.ReadBundle(t, "other-aa.zip").Root.PublicKey
	words := pki.FingerprintWords(root)
	wrong := strings.Repeat("aardvark adroitness ", 6)
	shown := func(text string) bool {
		return strings.Contains(text, fingerprint[50:]) || strings.Contains(text, words[4]+" "+words[5])
	}
	for _, given := range []string{"", "sha256:" + strings.Repeat("0", 64), "1234", wrong, "aardvark"} {
		args := strings.Fields("-C peer peer sign other-aa.zip --passphrase-file pass")
		if given != "" {
			args = append(args, "--fingerprint", given)
		}
		if code, _, stderr := runCLI(t, args...); code == exitDone || shown(stderr) {
			t.Errorf("%s: exit code %d\n%s", given, code, stderr)
		}
	}
	for _, typed := range []string{strings.Repeat("0", 64), wrong} {
		if err := compareTyped(typed, root); err == nil || shown(err.Error()) {
			t.Error(err)
		}
	}
}
