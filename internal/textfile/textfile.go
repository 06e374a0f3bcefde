// Package textfile reads text files written by any editor or shell: Windows programs write
// a byte order mark before the text, and the ">" of PowerShell writes UTF-16.
package textfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"

	"peerlink/internal/durable"
)

// ErrEncoding is wrapped by every error that [Decode] returns.
var ErrEncoding = errors.New("not a text file in UTF-8")

// The byte order marks: U+FEFF at the beginning of a text, in each encoding.
var (
	markUTF8    = []byte{0xEF, 0xBB, 0xBF}
	markUTF16LE = []byte{0xFF, 0xFE}
	markUTF16BE = []byte{0xFE, 0xFF}
)

// Decode returns the text of a file in UTF-8 without a byte order mark. UTF-16 is detected
// by its byte order mark and converted. An unpaired surrogate or a NUL is an error that
// wraps [ErrEncoding]. Other bytes that are not UTF-8 are returned unchanged, for the
// caller to check.
//
// The result may share memory with data, and is at most one and a half times as long.
func Decode(data []byte) ([]byte, error) {
	var err error
	switch {
	case bytes.HasPrefix(data, markUTF8):
		data = data[len(markUTF8):]
	case bytes.HasPrefix(data, markUTF16LE):
		data, err = decodeUTF16(data[len(markUTF16LE):], binary.LittleEndian)
	case bytes.HasPrefix(data, markUTF16BE):
		data, err = decodeUTF16(data[len(markUTF16BE):], binary.BigEndian)
	}
	if err == nil && bytes.IndexByte(data, 0) >= 0 {
		err = fmt.Errorf("%w: it has a NUL in it; if it is damaged, restore it from a backup; if it is in another encoding, save it as UTF-8", ErrEncoding)
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}

func decodeUTF16(data []byte, order binary.ByteOrder) ([]byte, error) {
	if len(data)%2 != 0 {
		return nil, fmt.Errorf("%w: it is in UTF-16 and ends in the middle of a character; save it as UTF-8", ErrEncoding)
	}
	text := make([]byte, 0, len(data)/2*3)
	for ; len(data) > 0; data = data[2:] {
		r := rune(order.Uint16(data))
		if utf16.IsSurrogate(r) {
			low := rune(utf8.RuneError)
			if len(data) >= 4 {
				low = rune(order.Uint16(data[2:]))
			}
			if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
				return nil, fmt.Errorf("%w: it is in UTF-16 and has half of a character in it; save it as UTF-8", ErrEncoding)
			}
			data = data[2:]
		}
		text = utf8.AppendRune(text, r)
	}
	return text, nil
}

// WithoutCR returns a text with LF in place of CRLF. If there is a CRLF, it also removes
// empty lines at the end: shells on Windows may add one.
func WithoutCR(text []byte) []byte {
	if !bytes.Contains(text, []byte("\r\n")) {
		return text
	}
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	return append(bytes.TrimRight(text, "\n"), '\n')
}

// HasMark reports whether data begins with a byte order mark, which is not permitted in
// files that other programs read too, or that are not text.
func HasMark(data []byte) bool {
	return bytes.HasPrefix(data, markUTF8) || bytes.HasPrefix(data, markUTF16LE) || bytes.HasPrefix(data, markUTF16BE)
}

// Read reads a regular file of up to limit bytes and decodes it like [Decode]. Errors
// name the file.
func Read(path string, limit int64) ([]byte, error) {
	data, err := durable.Read(path, limit)
	if err != nil {
		return nil, err
	}
	text, err := Decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}
