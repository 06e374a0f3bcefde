package smp

import (
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads the one JSON object that a message is, member by member.
//
// It exists because the standard library is not strict enough and not fast
// enough for this one job. encoding/json ignores the case of names, puts
// U+FFFD in place of what is not Unicode, and takes the last of two equal names;
// and to decode and encode a PrepareTransfer, with nothing checked, it takes
// three times as long as all of [View.Outgoing], 6 µs against 2, and 23
// allocations against one (see BenchmarkEncodingJSON). Its successor,
// encoding/json/v2, is strict, but takes two thirds of that and is still an
// experiment. The grammar of a flat object is small: this file is all of it.
type scanner struct {
	data []byte
	pos  int
	any  bool // a member has been read
}

// maxDepth bounds how deep an unknown property may be nested.
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

// token is one JSON value. Arrays and objects have been checked and skipped:
// no message has any that matter.
type token struct {
	kind tokenKind
	text []byte // of a string: decoded; of a number: its literal. May alias the input
}

// syntaxError says at which byte something else was expected.
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

// open starts reading data.
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

// member reads the next name and value. At the end of the object, which must be
// the end of the data, more is false.
func (s *scanner) member() (name []byte, value token, more bool, err error) {
	switch c := s.peek(); {
	case c == '}':
		s.pos++
		if s.peek(); s.pos < len(s.data) {
			return nil, token{}, false, s.fail("nothing more")
		}
		return nil, token{}, false, nil
	case s.any && c != ',':
		return nil, token{}, false, s.fail(`"," or "}"`)
	case s.any:
		s.pos++
	}
	s.any = true
	if name, err = s.name(); err == nil {
		value, err = s.value(1)
	}
	return name, value, err == nil, err
}

// name reads a member's name and the colon after it.
func (s *scanner) name() ([]byte, error) {
	if s.peek() != '"' {
		return nil, s.fail("a property name in quotes")
	}
	name, err := s.str()
	if err != nil {
		return nil, err
	}
	if s.peek() != ':' {
		return nil, s.fail(`":"`)
	}
	s.pos++
	return name, nil
}

// value reads any JSON value, which lies within depth arrays and objects.
func (s *scanner) value(depth int) (token, error) {
	switch c := s.peek(); {
	case c == '"':
		text, err := s.str()
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

// skip reads the array or object that starts here and ends with end.
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

// peek skips white space and returns the byte after it, which is not consumed;
// 0 at the end.
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

// str reads the string that starts here.
func (s *scanner) str() ([]byte, error) {
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

// unescape reads the rest of a string, the first escape sequence of which
// starts here, and appends what it stands for to text.
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

// unescaped returns what a backslash and c stand for; 0 if they stand for nothing.
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

// escapedRune reads the \uXXXX that data starts with, or the two of them that a
// rune above U+FFFF needs. It returns how many bytes that was; 0 if there is no
// such thing. Surrogates alone are no Unicode, and could not be written again.
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

// hexUnit reads the \uXXXX that data starts with; -1 if it does not.
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

// numberLength returns the length of the longest JSON number that data starts
// with; 0 if it starts with none. What follows is for the caller to judge.
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

// digits counts the decimal digits that data starts with.
func digits(data []byte) int {
	n := 0
	for n < len(data) && '0' <= data[n] && data[n] <= '9' {
		n++
	}
	return n
}
