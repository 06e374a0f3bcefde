package smp

import (
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner parses the JSON object of a message, member by member.
//
// It exists because the standard library is neither strict nor fast enough for messages.
// encoding/json ignores the case of names, replaces invalid UTF-8 by U+FFFD, and takes the
// last of two equal names; and decoding and encoding a PrepareTransfer, without
// validation, takes three times as long as all of [View.Outgoing], 6 µs instead of 2, and
// 23 allocations instead of one (see BenchmarkEncodingJSON). Its successor,
// encoding/json/v2, is strict, but takes two thirds of that and is still an experiment.
// The grammar of a flat object is small: this file is all of it.
type scanner struct {
	data    []byte
	pos     int
	started bool // a member has been parsed
}

// maxDepth bounds the nesting of objects and arrays, the message itself included.
const maxDepth = 32

// tokenKind is the kind of a JSON value.
type tokenKind uint8

const (
	stringToken tokenKind = iota + 1
	numberToken
	trueToken
	falseToken
	nullToken
	arrayToken
	objectToken
)

// token is one JSON value. Arrays and objects are validated and skipped: no message field
// has such a value.
type token struct {
	kind tokenKind
	text []byte // of a string: decoded; of a number: its literal; may share memory with the input
}

// syntaxError has the offset of the unexpected byte, and what was expected.
type syntaxError struct {
	offset   int
	expected string
}

func (e *syntaxError) Error() string {
	return fmt.Sprintf("body is not valid JSON: expected %s at byte %d", e.expected, e.offset)
}

func (s *scanner) fail(expected string) error {
	return &syntaxError{offset: s.pos, expected: expected}
}

// open starts parsing data.
func (s *scanner) open(data []byte) error {
	*s = scanner{data: data}
	if !utf8.Valid(data) {
		for s.pos < len(data) {
			if r, n := utf8.DecodeRune(data[s.pos:]); r != utf8.RuneError || n > 1 {
				s.pos += n
				continue
			}
			break
		}
		return s.fail("UTF-8")
	}
	if s.peek() != '{' {
		return s.fail(`"{"`)
	}
	s.pos++
	return nil
}

// member parses the next name and value. At the end of the object, which must be the end
// of the data, more is false.
func (s *scanner) member() (name []byte, value token, more bool, err error) {
	switch c := s.peek(); {
	case c == '}':
		s.pos++
		if s.peek(); s.pos < len(s.data) {
			return nil, token{}, false, s.fail("nothing more")
		}
		return nil, token{}, false, nil
	case s.started && c != ',':
		return nil, token{}, false, s.fail(`"," or "}"`)
	case s.started:
		s.pos++
	}
	s.started = true
	if name, err = s.name(); err == nil {
		value, err = s.value(1)
	}
	return name, value, err == nil, err
}

// name parses a member's name and the colon after it.
func (s *scanner) name() ([]byte, error) {
	if s.peek() != '"' {
		return nil, s.fail("a property name in quotes")
	}
	name, err := s.parseString()
	if err != nil {
		return nil, err
	}
	if s.peek() != ':' {
		return nil, s.fail(`":"`)
	}
	s.pos++
	return name, nil
}

// value parses any JSON value; depth is the number of enclosing arrays and objects.
func (s *scanner) value(depth int) (token, error) {
	switch c := s.peek(); {
	case c == '"':
		text, err := s.parseString()
		return token{kind: stringToken, text: text}, err
	case c == '-' || '0' <= c && c <= '9':
		n := numberLength(s.data[s.pos:])
		if n == 0 {
			return token{}, s.fail("a number")
		}
		literal := s.data[s.pos : s.pos+n]
		s.pos += n
		return token{kind: numberToken, text: literal}, nil
	case c == 't':
		return s.literal("true", trueToken)
	case c == 'f':
		return s.literal("false", falseToken)
	case c == 'n':
		return s.literal("null", nullToken)
	case c == '[':
		return token{kind: arrayToken}, s.skip(']', depth)
	case c == '{':
		return token{kind: objectToken}, s.skip('}', depth)
	}
	return token{}, s.fail("a value")
}

func (s *scanner) literal(word string, kind tokenKind) (token, error) {
	if end := s.pos + len(word); end <= len(s.data) && string(s.data[s.pos:end]) == word {
		s.pos = end
		return token{kind: kind}, nil
	}
	return token{}, s.fail(word)
}

// skip parses the array or object that starts here and ends with end.
func (s *scanner) skip(end byte, depth int) error {
	if depth >= maxDepth {
		return s.fail(fmt.Sprintf("fewer than %d arrays and objects within each other", maxDepth))
	}
	s.pos++
	for first := true; ; first = false {
		c := s.peek()
		if c == end {
			s.pos++
			return nil
		}
		if !first {
			if c != ',' {
				return s.fail(`"," or "` + string(end) + `"`)
			}
			s.pos++
		}
		if end == '}' {
			if _, err := s.name(); err != nil {
				return err
			}
		}
		if _, err := s.value(depth + 1); err != nil {
			return err
		}
	}
}

// peek skips white space and returns the next byte without consuming it, or 0 at the end.
func (s *scanner) peek() byte {
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; c {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

// parseString parses the string that starts here.
func (s *scanner) parseString() ([]byte, error) {
	s.pos++
	start := s.pos
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; {
		case c == '"':
			s.pos++
			return s.data[start : s.pos-1], nil
		case c == '\\':
			return s.unescape(append([]byte(nil), s.data[start:s.pos]...))
		case c < ' ':
			return nil, s.fail("an escape sequence in place of a control character")
		}
		s.pos++
	}
	return nil, s.fail("a closing quote")
}

// unescape parses the rest of a string, starting with its first escape sequence, and
// appends the decoded text to text.
func (s *scanner) unescape(text []byte) ([]byte, error) {
	for s.pos < len(s.data) {
		c := s.data[s.pos]
		switch {
		case c == '"':
			s.pos++
			return text, nil
		case c < ' ':
			return nil, s.fail("an escape sequence in place of a control character")
		case c != '\\':
			text = append(text, c)
			s.pos++
			continue
		}
		if s.pos+1 == len(s.data) {
			break
		}
		if s.data[s.pos+1] == 'u' {
			r, n := escapedRune(s.data[s.pos:])
			if n == 0 {
				return nil, s.fail(`"\u" and four hexadecimal digits, surrogates in pairs only,`)
			}
			text = utf8.AppendRune(text, r)
			s.pos += n
			continue
		}
		plain := unescaped(s.data[s.pos+1])
		if plain == 0 {
			return nil, s.fail("one of JSON's escape sequences")
		}
		text = append(text, plain)
		s.pos += 2
	}
	return nil, s.fail("a closing quote")
}

// unescaped returns the character denoted by a backslash and c, or 0 if there is none.
func unescaped(c byte) byte {
	switch c {
	case '"', '\\', '/':
		return c
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return 0
}

// escapedRune decodes the \uXXXX at the beginning of data, or the two of them for a rune
// above U+FFFF. It returns its length in bytes, or 0 if data does not begin with one.
// Unpaired surrogates are not Unicode, and could not be encoded again.
func escapedRune(data []byte) (r rune, n int) {
	r = hexUnit(data)
	switch {
	case r < 0:
		return 0, 0
	case !utf16.IsSurrogate(r):
		return r, 6
	}
	if r = utf16.DecodeRune(r, hexUnit(data[6:])); r == utf8.RuneError {
		return 0, 0
	}
	return r, 12
}

// hexUnit decodes the \uXXXX at the beginning of data, and returns -1 if there is none.
func hexUnit(data []byte) rune {
	if len(data) < 6 || data[0] != '\\' || data[1] != 'u' {
		return -1
	}
	var r rune
	for _, c := range data[2:6] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// numberLength returns the length of the longest JSON number at the beginning of data, or
// 0 if there is none, or if its fraction or exponent has no digits. The caller must check the
// text after it.
func numberLength(data []byte) int {
	i := 0
	if i < len(data) && data[i] == '-' {
		i++
	}
	n := digits(data[i:])
	if n == 0 {
		return 0
	}
	if data[i] == '0' {
		n = 1 // no leading zeros
	}
	i += n
	if i < len(data) && data[i] == '.' {
		if n = digits(data[i+1:]); n == 0 {
			return 0
		}
		i += 1 + n
	}
	if i < len(data) && (data[i] == 'e' || data[i] == 'E') {
		j := i + 1
		if j < len(data) && (data[j] == '+' || data[j] == '-') {
			j++
		}
		if n = digits(data[j:]); n == 0 {
			return 0
		}
		i = j + n
	}
	return i
}

// digits counts the decimal digits at the beginning of data.
func digits(data []byte) int {
	n := 0
	for n < len(data) && '0' <= data[n] && data[n] <= '9' {
		n++
	}
	return n
}
