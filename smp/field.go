package smp

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// kind is the type of a field's values.
type kind uint8

const (
	integerKind kind = iota + 1
	floatKind
	textKind
	timestampKind
	dateKind
)

// field is one row of the table of messages: a name, and the permitted values.
type field struct {
	name string
	kind kind

	min, max  int64             // of an integer; of a text: its length in bytes
	low, high float64           // of a float
	check     func([]byte) bool // of a text; nil: no further restriction
	expects   string            // of a text: the permitted values, for errors
	private   bool              // of a text: errors must not quote it
}

// value is a field's value. Which member is used depends on the field's kind.
type value struct {
	integer int64 // also: a timestamp in microseconds of the Unix epoch
	float   float64
	text    []byte // also: a timestamp or date in its canonical form
}

// Constructors for the rows of the table, by the permitted values.

func int64Field(name string) field { return integerField(name, math.MinInt64, math.MaxInt64) }
func int32Field(name string) field { return integerField(name, math.MinInt32, math.MaxInt32) }

// amountField returns a field for amounts and transfer numbers: int64 ≥ 0.
func amountField(name string) field { return integerField(name, 0, math.MaxInt64) }

// durationField returns a field for seconds: int32 ≥ 0.
func durationField(name string) field { return integerField(name, 0, math.MaxInt32) }

func integerField(name string, least, most int64) field {
	return field{name: name, kind: integerKind, min: least, max: most}
}

func floatField(name string, low, high float64) field {
	return field{name: name, kind: floatKind, low: low, high: high}
}

// asciiField returns a field for texts of least to most ASCII characters.
func asciiField(name string, least, most int64) field {
	return field{
		name: name, kind: textKind, min: least, max: most, check: isASCII,
		expects: fmt.Sprintf("a string of %d to %d ASCII characters", least, most),
	}
}

// privateField returns a field for texts of up to limit bytes of UTF-8 that are private to
// users.
func privateField(name string, limit int64) field {
	return field{
		name: name, kind: textKind, max: limit, private: true,
		expects: fmt.Sprintf("a string of at most %d bytes", limit),
	}
}

// constField returns a field with a single permitted value.
func constField(name, word string) field {
	return field{
		name: name, kind: textKind, max: int64(len(word)), check: func(s []byte) bool { return string(s) == word },
		expects: strconv.Quote(word) + ", as the message's header says",
	}
}

func timestampField(name string) field { return field{name: name, kind: timestampKind} }
func dateField(name string) field      { return field{name: name, kind: dateKind} }

// read converts a JSON value to a value of the field. It reports whether the field permits
// it; [field.refusal] explains why not.
func (f *field) read(t token) (v value, ok bool) {
	switch f.kind {
	case integerKind:
		v.integer, ok = readInteger(t)
		ok = ok && f.min <= v.integer && v.integer <= f.max
	case floatKind:
		v.float, ok = readFloat(t)
		ok = ok && f.low <= v.float && v.float <= f.high
	case textKind:
		v.text = t.text
		ok = t.kind == stringToken && f.min <= int64(len(v.text)) && int64(len(v.text)) <= f.max &&
			(f.check == nil || f.check(v.text))
	case timestampKind:
		if t.kind == stringToken {
			v.text, v.integer, ok = readTimestamp(t.text)
		}
	case dateKind:
		if t.kind == stringToken {
			v.text, ok = readDate(t.text)
		}
	}
	return v, ok
}

// refusal describes t, and the permitted values.
func (f *field) refusal(t token) string {
	return "is " + t.describe(f.private) + ", expected " + f.expectation()
}

// expectation describes the permitted values.
func (f *field) expectation() string {
	switch f.kind {
	case integerKind:
		return fmt.Sprintf("an integer from %d to %d", f.min, f.max)
	case floatKind:
		low, high := -math.MaxFloat64, math.MaxFloat64
		switch {
		case f.low > low && f.high < high:
			return fmt.Sprintf("a number from %g to %g", f.low, f.high)
		case f.low > low:
			return fmt.Sprintf("a finite number of at least %g", f.low)
		}
		return "a finite number"
	case timestampKind:
		return "a timestamp with an offset, such as 2023-01-01T12:00:00+00:00"
	case dateKind:
		return "a date, such as 2023-01-01"
	}
	return f.expects
}

// describe describes a value for errors. It does not quote a private value, but returns
// only its kind and, of a string, the size.
func (t token) describe(private bool) string {
	switch t.kind {
	case stringToken:
		if private {
			return fmt.Sprintf("a string of %d bytes", len(t.text))
		}
		if len(t.text) > maxExcerpt {
			return fmt.Sprintf("%s (%d bytes)", excerpt(t.text), len(t.text))
		}
		return excerpt(t.text)
	case numberToken:
		if private {
			return "a number"
		}
		if len(t.text) > maxExcerpt {
			return fmt.Sprintf("%s... (%d digits)", t.text[:maxExcerpt], len(t.text))
		}
		return string(t.text)
	case trueToken:
		return "true"
	case falseToken:
		return "false"
	case nullToken:
		return "null"
	case arrayToken:
		return "an array"
	}
	return "an object"
}

// maxExactFloat is the largest number up to which every integer can be represented
// exactly as a float64.
const maxExactFloat = 1 << 53

// readInteger parses any int64, as 5 or "5", and 5.0 up to maxExactFloat, because parsers that
// read 5.0 as a float64 round larger numbers. It never rounds.
func readInteger(t token) (int64, bool) {
	if !isNumber(t) {
		return 0, false
	}
	whole, fraction, hasFraction := bytes.Cut(t.text, []byte{'.'})
	n, err := strconv.ParseInt(string(whole), 10, 64)
	if err != nil {
		return 0, false
	}
	if !hasFraction {
		return n, true
	}
	zero := len(bytes.TrimLeft(fraction, "0")) == 0
	return n, zero && t.kind == numberToken && -maxExactFloat <= n && n <= maxExactFloat
}

// readFloat parses 5, 5.0 and "5.0".
func readFloat(t token) (float64, bool) {
	if !isNumber(t) {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(t.text), 64)
	return f, err == nil
}

// isNumber reports whether t is a number, or a string with the text of a number.
func isNumber(t token) bool {
	return t.kind == numberToken ||
		t.kind == stringToken && len(t.text) > 0 && numberLength(t.text) == len(t.text)
}

// append appends the value to b as JSON.
func (f *field) append(b []byte, v value) []byte {
	switch f.kind {
	case integerKind:
		return strconv.AppendInt(b, v.integer, 10)
	case floatKind:
		return appendFloat(b, v.float)
	case textKind:
		return appendString(b, v.text)
	}
	b = append(b, '"')
	b = append(b, v.text...) // canonical: needs no escapes
	return append(b, '"')
}

// appendFloat appends the shortest number that is parsed as f, always with a point or an
// exponent: some parsers read numbers without them as integers.
func appendFloat(b []byte, f float64) []byte {
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		return strconv.AppendFloat(b, f, 'e', -1, 64)
	}
	start := len(b)
	b = strconv.AppendFloat(b, f, 'f', -1, 64)
	for _, c := range b[start:] {
		if c == '.' {
			return b
		}
	}
	return append(b, '.', '0')
}

// appendString appends text in quotes, with only the escapes that JSON requires.
func appendString(b, text []byte) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i, c := range text {
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, text[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, '\\', 'b')
		case '\f':
			b = append(b, '\\', 'f')
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
	}
	b = append(b, text[start:]...)
	return append(b, '"')
}

func isASCII(s []byte) bool {
	for _, c := range s {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
