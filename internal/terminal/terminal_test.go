package terminal

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// No character that controls the terminal, changes the direction of text, or is invisible
// reaches the output; all others are not changed.
func TestEveryCharacter(t *testing.T) {
	hidden := []*unicode.RangeTable{
		unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs, unicode.Zl, unicode.Zp, unicode.Bidi_Control, unicode.Join_Control,
		unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector, unicode.Noncharacter_Code_Point, unicode.Pattern_White_Space,
	}
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if !utf8.ValidRune(r) || uniform(r) && r%101 != 0 {
			continue
		}
		in := string(r)
		hostile := unicode.In(r, hidden...) && r != ' '
		for name, got := range map[string]string{"Escape": escape(in), "Line": Line(in)} {
			switch {
			case name == "Escape" && (r == '\n' || r == '\t'):
				if got != in {
					t.Errorf("%s(%U) is %q", name, r, got)
				}
			case hostile && (got == in || strings.Trim(got, `\0123456789abcdefunrtx`) != ""):
				t.Errorf("%s(%U) is %q", name, r, got)
			case !hostile && unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S) && got != in:
				t.Errorf("%s(%U) is %q: a character that can be seen is escaped", name, r, got)
			}
		}
	}
}

// uniform reports whether a character is in the middle of a plane of equal characters: all
// are unassigned, or all are for private use. The test takes a sample of them.
func uniform(r rune) bool {
	plane, place := r>>16, r&0xffff
	return (plane >= 4 && plane <= 13 || plane >= 15) && place > 0xff && place < 0xff00
}

// escape, Line and a Writer write exactly these forms.
func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "",
		"plain → text…":            "plain → text…",
		"a\tb\nc":                  "a\tb\nc",
		"\x1b[31mred":              `\x1b[31mred`,
		"\u009b31m":                `\u009b31m`,
		"\x9b31m":                  `\x9b31m`,
		"abc\u202efdp.exe":         `abc\u202efdp.exe`,
		"\u2066\u200b\ufeff\u2028": `\u2066\u200b\ufeff\u2028`,
		"\x7f\r\x00\a":             `\u007f\r\x00\x07`,
		"\U000e0041":               `\udb40\udc41`,
		"half \xe2\x80":            `half \xe2\x80`,
		"\ufffd":                   "\ufffd",
		"\u3164":                   `\u3164`, // an invisible letter
	} {
		if got := escape(in); got != want {
			t.Errorf("Escape(%q) is %q, want %q", in, got, want)
		}
		var whole, parts bytes.Buffer
		w := NewWriter(&whole)
		if n, err := w.Write([]byte(in)); n != len(in) || err != nil {
			t.Errorf("Write(%q): %d, %v", in, n, err)
		}
		w.Flush()
		// The result is the same however the text is split.
		w = NewWriter(&parts)
		for _, c := range []byte(in) {
			w.Write([]byte{c})
		}
		w.Flush()
		if whole.String() != want || parts.String() != want {
			t.Errorf("Writer makes %q, and %q byte by byte, of %q", whole.String(), parts.String(), in)
		}
	}
	if got := Line("a\tb\nc\u202e"); got != `a\tb\nc\u202e` {
		t.Errorf("Line: %q", got)
	}
}

// JSON text is still JSON with the same meaning.
func TestJSONStaysTheSame(t *testing.T) {
	in := "\x1b\u009b\u202e\x7f\U000e0041\u2028 \"\\ → \n\t"
	text, err := json.Marshal(map[string]string{in: in})
	if err != nil {
		t.Fatal(err)
	}
	escaped := escape(string(text))
	if escaped == string(text) {
		t.Error("nothing is escaped")
	}
	var got map[string]string
	if err := json.Unmarshal([]byte(escaped), &got); err != nil || got[in] != in {
		t.Errorf("%q, %v", got, err)
	}
}

// Escaped text is not changed by another Escape, for any bytes, and has no hostile
// character.
func FuzzEscape(f *testing.F) {
	f.Add([]byte("\x1b[31m \u202e \xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		got := escape(string(in))
		if escape(got) != got || !utf8.ValidString(got) {
			t.Errorf("%q becomes %q", in, got)
		}
	})
}
