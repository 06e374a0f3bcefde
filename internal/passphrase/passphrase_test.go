package passphrase

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf16"
)

// utf16LE is the output of ">" of PowerShell 5: a byte order mark, UTF-16, CRLF.
func utf16LE(s string) []byte {
	data := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(s)) {
		data = append(data, byte(u), byte(u>>8))
	}
	return data
}

// For any editor or shell that has written the file, the passphrase is the text that a
// user who reads the file would type. Other files are refused when the passphrase is set.
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
		"too long":              bytes.Repeat([]byte("x"), Max+1),
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

// A passphrase set on one system works on another one whose keyboard sends accented
// letters in the other normal form.
func TestNormalForms(t *testing.T) {
	const nfc, nfd = "caf\u00e9 \u1e69", "cafe\u0301 s\u0323\u0307"
	for _, pass := range []string{nfc, nfd, "cafe\u0301 \u1e69"} {
		g := Given{Text: []byte(pass)}
		all := g.Candidates()
		has := func(want string) bool {
			for _, c := range all {
				if string(c) == want {
					return true
				}
			}
			return false
		}
		if string(all[0]) != pass || !has(nfc) || !has(nfd) || len(all) > 3 {
			t.Errorf("%q: candidates are %q", pass, all)
		}
		if len(Warnings(g.Text)) != 1 {
			t.Errorf("%q: warnings are %q", pass, Warnings(g.Text))
		}
	}
	if all := (&Given{Text: []byte("correct horse")}).Candidates(); len(all) != 1 {
		t.Errorf("candidates of ASCII are %q", all)
	}
	if all := (&Given{Text: []byte{}}).Candidates(); len(all) != 0 {
		t.Errorf("candidates of nothing are %q", all)
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

// A passphrase can not have an invisible character, whatever its category in Unicode: it
// could not be typed from paper.
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
