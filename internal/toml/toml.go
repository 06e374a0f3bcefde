// Package toml parses untrusted TOML 1.0, within bounds.
//
// The library that does the parsing supports TOML 1.1, which programs of other nodes can
// not read, and needs time proportional to the square of the number of keys. So a document
// is scanned first: the number of its keys and its depth are limited, and features that
// are new in TOML 1.1 are refused.
package toml

import (
	"errors"
	"fmt"

	"github.com/pelletier/go-toml/v2"

	"peerlink/internal/excerpt"
	"peerlink/internal/textfile"
)

// maxDepth bounds the nesting of arrays and inline tables. The files parsed here have one
// level.
const maxDepth = 16

// Unmarshal parses a document into v like [toml.Unmarshal]. The document may have at most
// maxKeys keys: each part of a dotted key or of a table's name counts, and each array and
// inline table too.
func Unmarshal(data []byte, v any, maxKeys int) error {
	if textfile.HasMark(data) {
		return errors.New("it begins with a byte order mark: save it as UTF-8 without one")
	}
	s := scanner{text: data, maxKeys: maxKeys, line: 1}
	if err := s.scan(); err != nil {
		return fmt.Errorf("line %d: %w", s.line, err)
	}
	err := toml.Unmarshal(data, v)
	if at, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, _ := at.Position()
		return fmt.Errorf("line %d: %s", line, excerpt.Of(at.Error()))
	}
	return err
}
