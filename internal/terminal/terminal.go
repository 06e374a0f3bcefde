// Package terminal escapes text for display. It does not escape HTML. It escapes what a
// terminal would interpret, or a terminal or a browser would hide or reorder: control
// characters (C0, DEL and C1), characters that change the direction of text, characters
// without width, line and paragraph separators, and bytes that are not UTF-8.
//
// The escapes are those of JSON, so that the meaning of JSON text does not change. Only C0
// and bytes that are not UTF-8, which JSON can not have, are escaped as \xNN.
package terminal

import (
	"fmt"
	"io"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// escape escapes a text, except line feeds and tabs.
func escape(s string) string {
	if plain(s) {
		return s
	}
	return string(appendEscaped(nil, []byte(s), true))
}

// Line escapes a text for display in one line, or in one cell of a table, including line
// feeds and tabs.
func Line(s string) string { return string(appendEscaped(nil, []byte(s), false)) }

// Writer escapes the text written to it; see [escape]. Its methods are safe for concurrent
// use.
type Writer struct {
	mu   sync.Mutex
	w    io.Writer
	held []byte // the beginning of an incomplete character
	err  error  // the first write error
}

// NewWriter returns a Writer that writes to w. Each Write causes at most one Write of w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Raw returns the underlying writer, for output that must not be escaped: a program's own
// colours, and data that is not displayed.
func (w *Writer) Raw() io.Writer { return w.w }

// Write writes p. It keeps an incomplete character at the end until the next Write.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	data := p
	if len(w.held) > 0 {
		data = append(w.held, p...)
	}
	whole := len(data) - incomplete(data)
	text := data[:whole]
	if !plain(text) {
		text = appendEscaped(nil, text, true)
	}
	if len(text) > 0 {
		if err := w.write(text); err != nil {
			return 0, err
		}
	}
	w.held = append([]byte(nil), data[whole:]...)
	return len(p), nil
}

// Flush writes an incomplete character, escaped. It returns the first error of all writes.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.held) > 0 {
		w.write(appendEscaped(nil, w.held, true))
		w.held = nil
	}
	return w.err
}

func (w *Writer) write(text []byte) error {
	_, err := w.w.Write(text)
	if w.err == nil {
		w.err = err
	}
	return err
}

// incomplete returns how many bytes at the end are the beginning of a character.
func incomplete(data []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(data); n++ {
		if end := data[len(data)-n:]; utf8.RuneStart(end[0]) {
			if utf8.FullRune(end) {
				return 0
			}
			return n
		}
	}
	return 0
}

// plain reports whether a text has only printable ASCII, line feeds and tabs.
func plain[T string | []byte](text T) bool {
	for i := range len(text) {
		if c := text[i]; (c < ' ' || c > '~') && c != '\n' && c != '\t' {
			return false
		}
	}
	return true
}

// short are the escapes with a letter.
var short = map[rune]string{'\n': `\n`, '\t': `\t`, '\r': `\r`}

func appendEscaped(out, text []byte, lines bool) []byte {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && size == 1:
			out = fmt.Appendf(out, `\x%02x`, text[0])
		case visible(r), lines && (r == '\n' || r == '\t'):
			out = append(out, text[:size]...)
		case short[r] != "":
			out = append(out, short[r]...)
		case r < ' ':
			out = fmt.Appendf(out, `\x%02x`, r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		text = text[size:]
	}
	return out
}

// visible reports whether a character is displayed as itself. Some that count as letters
// or marks are not: fillers and variation selectors.
func visible(r rune) bool {
	return unicode.IsPrint(r) && !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}
