package passphrase

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf16"

	"golang.org/x/text/unicode/norm"
)

// utf16LE is the output of ">" of PowerShell 5: a byte order mark, UTF-16, CRLF.
func utf16LE(s string) []byte {
	data := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(s)) {
		data = append(data, byte(u), byte(u>>8))
	}
	return data
}

// In whatever form an editor or a shell has written the file, the passphrase is the text
// that a user who reads the file would type. Other files are refused when a passphrase is
// set.
func TestFromFile(t *testing.T) {
	const pass = "correct höรse"
	for name, data := range map[string][]byte{
		"plain":             []byte(pass),
		"Unix":              []byte(pass + "\n"),
		"Windows":           []byte(pass + "\r\nsecond line\r\n"),
		"UTF-8 with a mark": []byte("\ufeff" + pass + "\r\n"),
		"UTF-16":            utf16LE(pass + "\r\nsecond line\r\n"),
		"UTF-16, no end":    utf16LE(pass),
	} {
		g, err := FromFile(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := g.Typeable(); string(got) != pass || err != nil {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	for name, data := range map[string][]byte{
		"nothing": nil, "an empty line": []byte("\r\nx"), "a mark only": utf16LE("\r\n"), "a mark of UTF-8 only": []byte("\ufeff\n"),
	} {
		if _, err := FromFile(data); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	for name, data := range map[string][]byte{
		"UTF-16 without a mark": utf16LE(pass)[2:],
		"half of UTF-16":        utf16LE(pass)[:7],
		"Latin-1":               []byte("p\xe4ssword"),
		"NUL":                   []byte("pass\x00word\n"),
		"escape sequence":       []byte("pass\x1b[Dword\n"),
		"tab":                   []byte("pass\tword\n"),
		"lone CR":               []byte("pass\rword\n"),
		"DEL":                   []byte("pass\x7fword\n"),
		"C1 control":            []byte("pass\u009bword\n"),
		"mark in the middle":    []byte("pass\ufeffword\n"),
		"zero-width space":      []byte("pass\u200bword\n"),
		"bidi override":         []byte("pass\u202eword\n"),
		"line separator":        []byte("pass\u2028word\n"),
		"replacement character": []byte("pass\ufffdword\n"),
		"too long":              bytes.Repeat([]byte("x"), maxBytes+1),
	} {
		g, err := FromFile(data)
		if err != nil {
			t.Errorf("%s can not be tried on an old key: %v", name, err)
			continue
		}
		if pass, err := g.Typeable(); err == nil {
			t.Errorf("%s: %q is accepted", name, pass)
		} else if strings.Contains(err.Error(), "word") {
			t.Errorf("%s: the error %q has the passphrase in it", name, err)
		}
		if last := g.Candidates()[len(g.Candidates())-1]; !bytes.Equal(last, firstLine(data)) {
			t.Errorf("%s: the last candidate is %q, want the bytes of the file", name, last)
		}
	}
}

// A passphrase that was set on one system can be typed on another one whose keyboard sends
// the same text in another form: the form with which the key was encrypted is among the
// candidates of every typed form. The first candidate is the typed text itself, with which
// another program may have encrypted a key.
func TestNormalForms(t *testing.T) {
	for _, forms := range [][]string{
		{"caf\u00e9 \u1e69", "cafe\u0301 s\u0323\u0307", "cafe\u0301 \u1e69"},
		{"ti\u1ebfng Vi\u1ec7t", "tie\u0302\u0301ng Vie\u0323\u0302t", "ti\u00ea\u0301ng Vi\u00ea\u0323t"}, // the last one is sent by Windows
		{"\u00c5ngstrom", "A\u030angstrom", "\u212bngstrom"},
		{"Kelvin", "\u212aelvin"},
		{"correct horse"},
	} {
		for _, set := range forms {
			stored := Normal([]byte(set))
			for _, typed := range forms {
				all := (&Input{Text: []byte(typed)}).Candidates()
				if string(all[0]) != typed || len(all) > 3 {
					t.Errorf("%q: candidates are %q", typed, all)
				}
				if !slices.ContainsFunc(all, func(c []byte) bool { return bytes.Equal(c, stored) }) {
					t.Errorf("%q was set, and no candidate of %q opens the key", set, typed)
				}
				if !Same([]byte(set), []byte(typed)) {
					t.Errorf("%q and %q are not the same passphrase", set, typed)
				}
			}
			mixed := !slices.ContainsFunc([]string{forms[0], forms[min(1, len(forms)-1)]}, func(s string) bool { return s == set })
			if set == "\u212aelvin" {
				mixed = true
			}
			if Mixed([]byte(set)) != mixed {
				t.Errorf("%q: in neither normal form is %v", set, !mixed)
			}
			if len(forms) == 1 != (len(Warnings([]byte(set))) == 0) && set != "Kelvin" {
				t.Errorf("%q: warnings are %q", set, Warnings([]byte(set)))
			}
		}
	}
	if all := (&Input{Text: []byte("correct horse")}).Candidates(); len(all) != 1 {
		t.Errorf("candidates of ASCII are %q", all)
	}
	if all := (&Input{Text: []byte{}}).Candidates(); len(all) != 0 {
		t.Errorf("candidates of nothing are %q", all)
	}
	if Same([]byte("correct horse"), []byte("correct house")) {
		t.Error("two different passphrases are the same")
	}
}

// For every accepted passphrase, its normal forms are accepted too, and have the same
// normal form, so that all of them open the key. A passphrase that cannot be typed in every
// form is refused.
func TestAcceptedInEveryForm(t *testing.T) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if p := norm.NFC.PropertiesString(string(r)); p.Decomposition() == nil && p.CCC() == 0 {
			continue // it is the same in all forms
		}
		pass := []byte("ab" + string(r) + "\u0323\u0301cd")
		if Check(pass) != nil {
			continue
		}
		stored := Normal(pass)
		for _, form := range Forms(pass) {
			if err := Check(form); err != nil || !bytes.Equal(Normal(form), stored) {
				t.Errorf("%q, a form of %q: Check returns %v, and its normal form is %q", form, pass, err, Normal(form))
			}
		}
	}
	for name, pass := range map[string]string{
		"long in NFD":    strings.Repeat("\ud55c", maxBytes/3),
		"long in NFC":    strings.Repeat("\u0958", maxBytes/3), // has no composed form
		"stream of them": "a" + strings.Repeat("\u0301", 40),
	} {
		if err := Check([]byte(pass)); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// For spaces that are not visible there are warnings.
func TestWarnings(t *testing.T) {
	for pass, want := range map[string]int{
		"correct horse": 0, "correct horse ": 1, " correct horse": 1, "correct\u00a0horse": 1, "\u3000correct horse": 2,
	} {
		if got := Warnings([]byte(pass)); len(got) != want {
			t.Errorf("%q: warnings are %q, want %d", pass, got, want)
		}
	}
}

// A passphrase cannot have an invisible character, whatever its category in Unicode,
// because such a character could not be typed from a printed page.
func TestInvisible(t *testing.T) {
	for _, r := range "\u00ad\u034f\u061c\u115f\u1160\u17b4\u180b\u200b\u2060\u2064\u206f\u2800\u3164\ufe00\ufe0f\ufeff\uffa0\U000e0001\U000e0100\U000e01ef" {
		if err := Check([]byte("correct" + string(r) + "horse")); err == nil || !strings.Contains(err.Error(), "can not be seen") {
			t.Errorf("%U: %v", r, err)
		}
	}
	for _, pass := range []string{"correct horse", "caf\u00e9", "cafe\u0301", "鍵🔑", "\u2801 Braille"} {
		if err := Check([]byte(pass)); err != nil {
			t.Errorf("%q: %v", pass, err)
		}
	}
}
