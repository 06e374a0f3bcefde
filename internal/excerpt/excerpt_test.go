package excerpt

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// A short text is not changed, up to the last byte. A long text is cut at the limit, or
// before the character at the limit, and has a mark.
func TestLimit(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"abcd", "abcd"},
		{"abcde", "abcd…"},
		{"abcé", "abc…"}, // é would end at the fifth byte
		{"abéd", "abé…"}, // é ends at the fourth
		{"ab€", "ab…"},
		{"a😀", "a…"},
		{"😀😀", "😀…"},
		{"\x80\x80\x80\x80\x80", "\x80\x80\x80\x80…"},
		{"\xffbcdé", "\xffbcd…"},
	} {
		if got := Limit(c.text, 4); got != c.want {
			t.Errorf("%q: got %q, want %q", c.text, got, c.want)
		}
	}
	if got := Limit("é", 0); got != "…" {
		t.Errorf("nothing of a text: got %q", got)
	}
}

// Of keeps every ID complete, and shortens a long text of any characters to the limit.
// Valid UTF-8 stays valid.
func TestOf(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	if got := Of(id); got != id {
		t.Errorf("a fingerprint of 64 digits became %q", got)
	}
	for _, c := range []string{"a", "é", "€", "😀"} {
		for n := range utf8.UTFMax {
			got := Of(strings.Repeat("x", n) + strings.Repeat(c, 1000))
			if !utf8.ValidString(got) || len(got) > ofLimit+len("…") || len(got) <= ofLimit-utf8.UTFMax {
				t.Errorf("%d bytes: %q", len(got), got)
			}
		}
	}
}
