package stomp

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// appendEscaped appends s as it is written in a header (STOMP 1.2, "Value
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

// escapeLetter is what follows the backslash in the escape for c, or 0 when c
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

// appendUnescaped appends what s, a name or a value of a header, stands for. A
// backslash that begins no escape is taken as it is when lenient, and otherwise
// makes ok false.
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

// clip gives the longest beginning of s that takes at most limit bytes when
// escaped, with bytes that are not UTF-8 replaced.
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
