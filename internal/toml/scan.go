package toml

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
)

// scanner scans the tokens of a document, without storing values. In a document that is
// not TOML it may misinterpret tokens, but only after the position at which the parser
// stops.
type scanner struct {
	text    []byte // not scanned yet
	line    int    // line number of text
	maxKeys int
	keys    int    // number of keys so far
	open    []byte // the open brackets: [ and {
	comma   bool   // the last token was a comma
}

var errEscape = errors.New("the escape sequences \\e and \\x are not in TOML 1.0, which other nodes read: use \\u")

func (s *scanner) scan() error {
	for len(s.text) > 0 {
		c := s.text[0]
		var err error
		switch c {
		case ' ', '\t', '\r':
			s.text = s.text[1:]
			continue
		case '#':
			s.comment()
			continue
		case '\n':
			err = s.newline()
		case '"', '\'':
			err = s.quoted(c)
		case '[', '{':
			err = s.begin(c)
		case ']', '}':
			err = s.end(c)
		case '=', '.':
			s.text = s.text[1:]
			err = s.count()
		case ',':
			s.text = s.text[1:]
		default:
			err = s.bare()
		}
		if err != nil {
			return err
		}
		if c != '\n' {
			s.comma = c == ','
		}
	}
	return nil
}

func (s *scanner) comment() {
	if i := bytes.IndexByte(s.text, '\n'); i >= 0 {
		s.text = s.text[i:]
	} else {
		s.text = nil
	}
}

func (s *scanner) newline() error {
	if n := len(s.open); n > 0 && s.open[n-1] == '{' {
		return errors.New("a line may not end within { }: in TOML 1.0, which other nodes read, an inline table is on one line")
	}
	s.text = s.text[1:]
	s.line++
	return nil
}

func (s *scanner) begin(bracket byte) error {
	s.text = s.text[1:]
	if len(s.open) == maxDepth {
		return fmt.Errorf("arrays and inline tables are nested more than %d deep", maxDepth)
	}
	s.open = append(s.open, bracket)
	return s.count()
}

func (s *scanner) end(bracket byte) error {
	if bracket == '}' && s.comma {
		return errors.New("a comma before }: in TOML 1.0, which other nodes read, none may stand there")
	}
	s.text = s.text[1:]
	if len(s.open) > 0 {
		s.open = s.open[:len(s.open)-1]
	}
	return nil
}

// count counts a key, an array, a table or an inline table.
func (s *scanner) count() error {
	if s.keys++; s.keys > s.maxKeys {
		return fmt.Errorf("more than %d keys, arrays and tables", s.maxKeys)
	}
	return nil
}

// bare scans a key, a number, a date or a time without quotation marks.
func (s *scanner) bare() error {
	n := bytes.IndexAny(s.text, " \t\r\n#\"'[]{}=.,")
	if n < 0 {
		n = len(s.text)
	}
	word := s.text[:max(n, 1)]
	s.text = s.text[len(word):]
	if shortTime.Match(word) {
		return errors.New("a time without seconds: in TOML 1.0, which other nodes read, they must be given")
	}
	if yearZero.Match(word) {
		return errors.New("a date in the year 0000, which not every other node reads")
	}
	return nil
}

var yearZero = regexp.MustCompile(`^0000-[0-9]{2}-[0-9]{2}`)

// shortTime matches a time such as 12:30, with optional date and time zone.
var shortTime = regexp.MustCompile(`^([0-9-]+[Tt])?[0-9]{2}:[0-9]{2}([Zz+-].*)?$`)

// quoted scans a string, which may be a key.
func (s *scanner) quoted(quote byte) error {
	triple := []byte{quote, quote, quote}
	if bytes.HasPrefix(s.text, triple) {
		return s.multiLine(quote, triple)
	}
	for i := 1; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == quote:
			s.text = s.text[i+1:]
			return nil
		case c == '\n':
			s.text = s.text[i:] // not TOML
			return nil
		case c == '\\' && quote == '"':
			if i++; newEscape(s.text[i:]) {
				return errEscape
			}
		}
	}
	s.text = nil
	return nil
}

// multiLine scans a string in triple quotation marks. One or two more quotation marks may
// precede those at its end.
func (s *scanner) multiLine(quote byte, triple []byte) error {
	for i := len(triple); i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == quote && bytes.HasPrefix(s.text[i:], triple):
			s.text = s.text[i+len(triple):]
			for n := 0; n < 2 && len(s.text) > 0 && s.text[0] == quote; n++ {
				s.text = s.text[1:]
			}
			return nil
		case c == '\n':
			s.line++
		case c == '\\' && quote == '"':
			if newEscape(s.text[i+1:]) {
				return errEscape
			}
			if i+1 < len(s.text) && s.text[i+1] != '\n' {
				i++
			}
		}
	}
	s.text = nil
	return nil
}

// newEscape reports whether text begins with an escape sequence, without its backslash,
// that is new in TOML 1.1.
func newEscape(text []byte) bool { return len(text) > 0 && (text[0] == 'e' || text[0] == 'x') }
