// Package toml reads TOML 1.0 that strangers have written, within bounds.
//
// The library that does the parsing knows TOML 1.1, which the programs of other
// nodes can not read, and needs time that grows with the square of the number of
// keys. So a document is scanned first: it may have a limited number of keys and
// a limited depth, and nothing that is new in TOML 1.1.
package toml

import (
	"errors"
	"fmt"

	"github.com/pelletier/go-toml/v2"

	"peerlink/internal/excerpt"
	"peerlink/internal/textfile"
)

// maxDepth is how deep arrays and inline tables may be nested. Those of the
// files that are read here are nested once.
const maxDepth = 16

// Unmarshal reads a document into v as [toml.Unmarshal] does. The document may
// have at most maxKeys keys: each part of a dotted key or of a table's name is
// counted, and each array and inline table too.
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
