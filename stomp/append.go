package stomp

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// appendFrame appends the wire form of f to dst. A content-length is added if there is
// a body or may be one (SEND, MESSAGE, ERROR), unless f has that header. If f violates
// the rules of STOMP or exceeds [DefaultLimits], appendFrame returns dst unchanged and
// [ErrUnsendable].
func appendFrame(dst []byte, f *Frame) ([]byte, error) {
	return DefaultLimits().appendFrame(dst, f)
}

func (l Limits) appendFrame(dst []byte, f *Frame) ([]byte, error) {
	return encoder{Limits: l}.appendFrame(dst, f)
}

// encoder writes frames of one connection.
type encoder struct {
	Limits
	raw bool // headers are not escaped, as in STOMP 1.0
}

func (l encoder) appendFrame(dst []byte, f *Frame) ([]byte, error) {
	switch {
	case !isCommand(f.Command) || len(f.Command) > l.Command:
		return dst, unsendablef("%.40q is not a command of 1 to %d capital letters", f.Command, l.Command)
	case len(f.Body) > l.Body:
		return dst, unsendablef("body of %s has %d bytes, at most %d are allowed", f.Command, len(f.Body), l.Body)
	}
	out := slices.Grow(dst, 256+len(f.Body))
	out = append(out, f.Command...)
	out = append(out, '\n')
	out, err := l.appendHeaders(out, f)
	if err != nil {
		return dst, err
	}
	out = append(out, '\n')
	out = append(out, f.Body...)
	return append(out, 0), nil
}

func (l encoder) appendHeaders(out []byte, f *Frame) ([]byte, error) {
	start, count := len(out), len(f.Headers)
	for i := range f.Headers {
		var err error
		if out, err = l.appendHeader(out, f.Command, &f.Headers[i]); err != nil {
			return nil, err
		}
	}
	if length, given := f.Get("content-length"); given {
		if n, ok := parseDecimal(length); !ok || n != uint64(len(f.Body)) {
			return nil, unsendablef("content-length of %s is %.40q, but the body has %d bytes", f.Command, length, len(f.Body))
		}
	} else if len(f.Body) > 0 || carriesBody(f.Command) {
		out = append(out, "content-length:"...)
		out = strconv.AppendInt(out, int64(len(f.Body)), 10)
		out = append(out, '\n')
		count++
	}
	if count > l.Headers {
		return nil, unsendablef("%s has %d headers, at most %d are allowed", f.Command, count, l.Headers)
	}
	if size := len(out) - start; size > l.HeaderBytes {
		return nil, unsendablef("headers of %s take %d bytes, at most %d are allowed", f.Command, size, l.HeaderBytes)
	}
	return out, nil
}

// appendHeader appends one header line. Errors must not quote values: a CONNECT
// may contain a passcode.
func (l encoder) appendHeader(out []byte, command string, h *Header) ([]byte, error) {
	start := len(out)
	if l.raw && (strings.ContainsAny(h.Name, ":\r\n") || strings.ContainsAny(h.Value, "\r\n")) {
		return nil, unsendablef("header %.40q of %s has a line end or a colon, which STOMP %s can not express", h.Name, command, version10)
	}
	out = l.appendText(out, h.Name)
	nameSize := len(out) - start
	out = append(out, ':')
	out = l.appendText(out, h.Value)
	valueSize := len(out) - start - nameSize - 1
	switch {
	case nameSize == 0:
		return nil, unsendablef("%s has a header without a name", command)
	case nameSize > l.HeaderName:
		return nil, unsendablef("name of header %.40q of %s takes %d bytes, at most %d are allowed", h.Name, command, nameSize, l.HeaderName)
	case valueSize > l.HeaderValue:
		return nil, unsendablef("value of header %.40q of %s takes %d bytes, at most %d are allowed", h.Name, command, valueSize, l.HeaderValue)
	case !utf8.ValidString(h.Name) || !utf8.ValidString(h.Value):
		return nil, unsendablef("header %.40q of %s is not valid UTF-8", h.Name, command)
	}
	return append(out, '\n'), nil
}

// appendText appends a name or a value of a header.
func (l encoder) appendText(out []byte, s string) []byte {
	if l.raw {
		return append(out, s...)
	}
	return appendEscaped(out, s)
}
