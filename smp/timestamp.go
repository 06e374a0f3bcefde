package smp

import (
	"slices"
	"time"
)

// Timestamps are kept as text, because the instant, to the microsecond, and the offset
// must be preserved. Parsing a timestamp validates it and converts it to its canonical
// form, in its original offset.
//
// ISO 8601 has many forms. The reference accepts
//
//	2023-01-01T12:00[:00[.123456]](Z|+02|+02:00|+0200)
//
// with a space in place of the T, months, days, hours, minutes and seconds of one or two
// digits, and up to 12 fractional digits, of which 6 are used. Years are 0001 to 9999;
// 24:00 and leap seconds are refused.

// readTimestamp parses an ISO 8601 timestamp with an offset. It returns the canonical
// text, which is s itself if s has that form, and the instant in microseconds of the Unix
// epoch.
func readTimestamp(s []byte) (canonical []byte, micros int64, ok bool) {
	c := cursor{rest: s}
	year, month, day := c.date()
	c.consume("T ")
	hour := c.number(1, 2)
	c.consume(":")
	minute := c.number(1, 2)
	second, fraction := 0, 0
	if c.has(":") {
		c.consume(":")
		second = c.number(1, 2)
		if c.has(".") {
			c.consume(".")
			fraction = c.fraction()
		}
	}
	offset := c.offset()
	if c.bad || len(c.rest) > 0 || hour > 23 || minute > 59 || second > 59 {
		return nil, 0, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, fraction*1000, time.UTC)
	micros = t.UnixMicro() - int64(offset)*60*1_000_000

	var buf [len("2023-01-01T12:00:00.123456+00:00")]byte
	b := appendDate(buf[:0], year, month, day)
	b = appendDigits(append(b, 'T'), hour, 2)
	b = appendDigits(append(b, ':'), minute, 2)
	b = appendDigits(append(b, ':'), second, 2)
	if fraction != 0 {
		b = appendDigits(append(b, '.'), fraction, 6)
	}
	sign := byte('+')
	if offset < 0 {
		sign, offset = '-', -offset
	}
	b = appendDigits(append(b, sign), offset/60, 2)
	b = appendDigits(append(b, ':'), offset%60, 2)
	return keep(s, b), micros, true
}

// readDate parses a date, 2023-01-01 or 2023-1-1, and returns its canonical text.
func readDate(s []byte) (canonical []byte, ok bool) {
	c := cursor{rest: s}
	year, month, day := c.date()
	if c.bad || len(c.rest) > 0 {
		return nil, false
	}
	var buf [len("2023-01-01")]byte
	return keep(s, appendDate(buf[:0], year, month, day)), true
}

// keep returns s if it equals canonical, and otherwise a copy of canonical, so that
// canonical can be on the caller's stack.
func keep(s, canonical []byte) []byte {
	if string(s) == string(canonical) {
		return s
	}
	return slices.Clone(canonical)
}

func appendDate(b []byte, year, month, day int) []byte {
	b = appendDigits(b, year, 4)
	b = appendDigits(append(b, '-'), month, 2)
	return appendDigits(append(b, '-'), day, 2)
}

// appendDigits appends n ≥ 0 in decimal with exactly width digits.
func appendDigits(b []byte, n, width int) []byte {
	start := len(b)
	for range width {
		b = append(b, '0')
	}
	for i := start + width - 1; i >= start; i-- {
		b[i] = '0' + byte(n%10)
		n /= 10
	}
	return b
}

// cursor parses a text from left to right. After a syntax error, bad stays true.
type cursor struct {
	rest []byte
	bad  bool
}

// has reports whether the next byte is one of set.
func (c *cursor) has(set string) bool {
	if len(c.rest) == 0 {
		return false
	}
	for i := range len(set) {
		if set[i] == c.rest[0] {
			return true
		}
	}
	return false
}

// consume consumes a byte, which must be one of set, and returns it.
func (c *cursor) consume(set string) byte {
	if !c.has(set) {
		c.bad = true
		return 0
	}
	b := c.rest[0]
	c.rest = c.rest[1:]
	return b
}

// number parses a decimal number of least to most digits.
func (c *cursor) number(least, most int) int {
	n, count := 0, 0
	for count < most && c.has("0123456789") {
		n = n*10 + int(c.rest[0]-'0')
		c.rest = c.rest[1:]
		count++
	}
	if count < least {
		c.bad = true
	}
	return n
}

// date parses a valid date.
func (c *cursor) date() (year, month, day int) {
	year = c.number(4, 4)
	c.consume("-")
	month = c.number(1, 2)
	c.consume("-")
	day = c.number(1, 2)
	if year < 1 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		c.bad = true
	}
	return year, month, day
}

// daysIn returns the length of a month from 1 to 12.
func daysIn(year, month int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// fraction parses 1 to 12 fractional digits of a second and returns the microseconds.
func (c *cursor) fraction() int {
	before := len(c.rest)
	n := c.number(1, 6)
	for range 6 - (before - len(c.rest)) {
		n *= 10
	}
	c.number(0, 6)
	return n
}

// offset parses "Z" or a difference from UTC, and returns it in minutes.
func (c *cursor) offset() int {
	sign := c.consume("Z+-")
	if sign == 'Z' || c.bad {
		return 0
	}
	hours, minutes := c.number(2, 2), 0
	if len(c.rest) > 0 {
		if c.has(":") {
			c.consume(":")
		}
		minutes = c.number(2, 2)
	}
	if hours > 23 || minutes > 59 {
		c.bad = true
	}
	if sign == '-' {
		return -(hours*60 + minutes)
	}
	return hours*60 + minutes
}
