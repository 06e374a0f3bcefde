package textfile_test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"peerlink/internal/textfile"
)

// utf16File returns a text in the form that Windows programs write.
func utf16File(order binary.AppendByteOrder, text string) []byte {
	data := order.AppendUint16(nil, 0xFEFF)
	for _, u := range utf16.Encode([]rune(text)) {
		data = order.AppendUint16(data, u)
	}
	return data
}

// Decode returns the same text for every encoding that the usual programs write.
func TestDecode(t *testing.T) {
	for _, text := range []string{"", "one line\r\n", "ключ, 鍵, 🔑\n", "\uFFFD"} {
		for name, data := range map[string][]byte{
			"plain":    []byte(text),
			"UTF-8":    []byte("\uFEFF" + text),
			"UTF-16LE": utf16File(binary.LittleEndian, text),
			"UTF-16BE": utf16File(binary.BigEndian, text),
		} {
			got, err := textfile.Decode(data)
			if err != nil || string(got) != text {
				t.Errorf("%s of %q: %q, %v", name, text, got, err)
			}
			if textfile.HasMark(data) != (name != "plain") {
				t.Errorf("%s of %q: HasMark is %v", name, text, !(name != "plain"))
			}
		}
	}
}

// Line ends become LF. Nothing else changes in a text without CRLF.
func TestWithoutCR(t *testing.T) {
	for text, want := range map[string]string{
		"":                   "",
		"a\nb":               "a\nb",
		"a\rb\n\n":           "a\rb\n\n",
		"a\r\nb\r\n":         "a\nb\n",
		"a\r\n\r\nb\r\n\r\n": "a\n\nb\n",
		"a\r\nb":             "a\nb\n",
	} {
		if got := textfile.WithoutCR([]byte(text)); string(got) != want {
			t.Errorf("%q gives %q, want %q", text, got, want)
		}
	}
}

// Text in an unknown encoding is refused, and its encoding is not guessed. The error
// names the file and a remedy.
func TestRefused(t *testing.T) {
	for name, data := range map[string]string{
		"UTF-16 without a mark":    "a\x00b\x00",
		"UTF-32":                   "\xff\xfe\x00\x00a\x00\x00\x00",
		"half a unit":              "\xff\xfea",
		"high half at the end":     "\xff\xfe\x3d\xd8",
		"high half before another": "\xff\xfe\x3d\xd8a\x00",
		"low half":                 "\xfe\xff\xdd\x11",
		"NUL in UTF-8":             "\ufeffa\x00",
	} {
		path := filepath.Join(t.TempDir(), "text.txt")
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := textfile.Read(path, 100)
		if !errors.Is(err, textfile.ErrEncoding) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "save it as UTF-8") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// For any bytes, the result is bounded and has no NUL, and decoding UTF-16 loses nothing.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("\xff\xfea\x00"))
	f.Add([]byte("\xfe\xff\xd8\x3d\xdd\x11"))
	f.Fuzz(func(t *testing.T, data []byte) {
		text, err := textfile.Decode(data)
		if err != nil {
			if !errors.Is(err, textfile.ErrEncoding) {
				t.Fatal(err)
			}
			return
		}
		if len(text) > len(data)+len(data)/2 || strings.Contains(string(text), "\x00") {
			t.Fatalf("%q gives %q", data, text)
		}
		for order, first := range map[binary.AppendByteOrder]byte{binary.LittleEndian: 0xFF, binary.BigEndian: 0xFE} {
			if textfile.HasMark(data) && data[0] == first && (!utf8.Valid(text) || string(utf16File(order, string(text))) != string(data)) {
				t.Fatalf("%q gives %q", data, text)
			}
		}
	})
}
