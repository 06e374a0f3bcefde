package stomp

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// appendEscaped appends s in the escaped form of a header (STOMP 1.2, "Value
// Encoding").
func appendEscaped(dst []byte, s string) []byte {
	start := 0
	for i := range len(s) {
		if letter := escapeLetter(s[i]); letter != 0 {
			dst = append(dst, s[start:i]...)
			dst = append(dst, '\\', letter)
			start = i + 1
		}
	}
	return append(dst, s[start:]...)
}

// escapeLetter returns the byte after the backslash in the escape for c, or 0 if c
// needs none.
func escapeLetter(c byte) byte {
	switch c {
	case '\r':
		return 'r'
	case '\n':
		return 'n'
	case ':':
		return 'c'
	case '\\':
		return '\\'
	}
	return 0
}

// appendUnescaped appends the unescaped form of s, a name or a value of a header. A
// backslash that begins no escape is kept if lenient; otherwise ok is false.
func appendUnescaped(dst, s []byte, lenient bool) (_ []byte, ok bool) {
	for {
		i := bytes.IndexByte(s, '\\')
		if i < 0 {
			return append(dst, s...), true
		}
		dst = append(dst, s[:i]...)
		s = s[i+1:]
		c, known := byte('\\'), false
		if len(s) > 0 {
			switch s[0] {
			case 'r':
				c, known = '\r', true
			case 'n':
				c, known = '\n', true
			case 'c':
				c, known = ':', true
			case '\\':
				known = true
			}
		}
		if known {
			s = s[1:]
		} else if !lenient {
			return dst, false
		}
		dst = append(dst, c)
	}
}

// clip returns the longest prefix of s that takes at most limit bytes when escaped,
// with bytes that are not UTF-8 replaced.
func clip(s string, limit int) string {
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	size := 0
	for i, r := range s {
		size += utf8.RuneLen(r)
		if r < utf8.RuneSelf && escapeLetter(byte(r)) != 0 {
			size++
		}
		if size > limit {
			return s[:i]
		}
	}
	return s
}
