package registry

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"peerlink/internal/excerpt"
	"peerlink/internal/toml"
)

// Bounds on a list.
const (
	maxList    = 1 << 20 // bytes; about 7,000 accounting authorities
	maxLine    = 1000    // bytes
	maxName    = 200     // bytes
	maxEntries = 10_000
	maxKeys    = 2 + 5*maxEntries // including the names of tables
)

// version is the version of the format, the first statement of every list.
const version = "1"

// parse parses a list. If key is not nil, the list must be signed with it, or the error wraps
// [errUnsigned] or [errSignature]. If key is nil, a signature is not verified. If the list is no
// longer valid at the time now, the error wraps [errExpired]. If the list is malformed, the error
// wraps [errFormat] or [errVersion].
func parse(data []byte, key ed25519.PublicKey, now time.Time) (*List, error) {
	if len(data) > maxList {
		return nil, tooLarge()
	}
	statements, signature, err := split(data)
	if err != nil {
		return nil, err
	}
	if key != nil {
		if err := verify(statements, signature, key); err != nil {
			return nil, err
		}
	}
	l, err := decode(statements)
	if err != nil {
		return nil, err
	}
	if !l.ValidUntil.IsZero() && now.After(l.ValidUntil) {
		return nil, fmt.Errorf("%w: it was valid until %s; get a newer one", errExpired, l.ValidUntil.Format(time.RFC3339))
	}
	l.Verified = key != nil
	return l, nil
}

func tooLarge() error { return fmt.Errorf("%w: larger than %d bytes", errFormat, maxList) }

// The allowed lines of a list. Each is a complete TOML statement. No string spans lines, so that
// the line with the signature can not be part of a string. No value is nested, because deep
// nesting in 1 MiB can keep a general TOML parser busy for minutes.
var (
	blankLine   = regexp.MustCompile(`^[ \t]*(#.*)?$`)
	headerLine  = regexp.MustCompile(`^[ \t]*\[\[[ \t]*authority[ \t]*\]\][ \t]*(#.*)?$`)
	versionLine = regexp.MustCompile(`^[ \t]*version[ \t]*=[ \t]*([0-9]+)[ \t]*(#.*)?$`)
	keyLine     = regexp.MustCompile(`^[ \t]*([A-Za-z0-9_-]+)[ \t]*=[ \t]*(.*)$`)

	stringValue = regexp.MustCompile(`^"([^"].*|"([^"].*)?)$`) // not """
	numberValue = regexp.MustCompile(`^[0-9]+[ \t]*(#.*)?$`)
	timeValue   = regexp.MustCompile(`^[0-9-]{10}[Tt ][0-9:.]+([Zz]|[+-][0-9:]+)[ \t]*(#.*)?$`)
)

// values has the form of the value for each key.
var values = map[string]struct {
	form        *regexp.Regexp
	description string // of the form, for errors
}{
	"version":     {numberValue, "a number"},
	"valid-until": {timeValue, "a time with its zone, such as 2027-01-01T00:00:00Z"},
	"id":          {stringValue, "a string in double quotes"},
	"name":        {stringValue, "a string in double quotes"},
	"fingerprint": {stringValue, "a string in double quotes"},
}

// checkLines checks that every line has an allowed form. It does not parse the values; the TOML
// parser does.
func checkLines(statements []byte) error {
	n, entries, hasVersion := 0, 0, false
	for line := range bytes.Lines(statements) {
		n++
		line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		if err := checkLine(line); err != nil {
			return fmt.Errorf("%w: line %d: %w", errFormat, n, err)
		}
		// The number of entries is limited here, before they are parsed.
		if headerLine.Match(line) {
			if entries++; entries > maxEntries {
				return fmt.Errorf("%w: more than %d accounting authorities", errFormat, maxEntries)
			}
		}
		if hasVersion || blankLine.Match(line) {
			continue
		}
		// This is the first statement, which must be the version. What follows may differ in
		// later versions of the format.
		hasVersion = true
		m := versionLine.FindSubmatch(line)
		if m == nil {
			return fmt.Errorf("%w: line %d: expected \"version = %s\" before anything else", errFormat, n, version)
		}
		if got := string(m[1]); got != version {
			return fmt.Errorf("%w: version %s: expected %s", errVersion, excerpt.Of(got), version)
		}
	}
	if !hasVersion {
		return fmt.Errorf("%w: it is empty", errFormat)
	}
	return nil
}

func checkLine(line []byte) error {
	if len(line) > maxLine {
		return fmt.Errorf("%d bytes: expected at most %d", len(line), maxLine)
	}
	if blankLine.Match(line) || headerLine.Match(line) {
		return nil
	}
	m := keyLine.FindSubmatch(line)
	if m == nil {
		return fmt.Errorf("%q: expected a comment, [[authority]], or a key and its value", excerpt.Of(string(line)))
	}
	v, known := values[string(m[1])]
	if !known {
		return fmt.Errorf("unknown key %q", excerpt.Of(string(m[1])))
	}
	if !v.form.Match(m[2]) {
		return fmt.Errorf("%s is %q: expected %s", m[1], excerpt.Of(string(m[2])), v.description)
	}
	return nil
}

// decode decodes the statements of a list.
func decode(statements []byte) (*List, error) {
	if err := checkLines(statements); err != nil {
		return nil, err
	}
	// These fields are set if a key is in the wrong place, such as an id above the first
	// [[authority]].
	var f struct {
		Version     int64     `toml:"version"`
		ValidUntil  time.Time `toml:"valid-until"`
		ID          any       `toml:"id"`
		Name        any       `toml:"name"`
		Fingerprint any       `toml:"fingerprint"`
		Authority   []struct {
			ID          string `toml:"id"`
			Name        string `toml:"name"`
			Fingerprint string `toml:"fingerprint"`
			Version     any    `toml:"version"`
			ValidUntil  any    `toml:"valid-until"`
		} `toml:"authority"`
	}
	if err := toml.Unmarshal(statements, &f, maxKeys); err != nil {
		return nil, fmt.Errorf("%w: %s", errFormat, printable(err.Error()))
	}
	if f.ID != nil || f.Name != nil || f.Fingerprint != nil {
		return nil, fmt.Errorf("%w: an id, name or fingerprint is in the wrong place, above the first [[authority]]", errFormat)
	}
	l := &List{ValidUntil: f.ValidUntil, entries: make(map[string]Entry, len(f.Authority))}
	for i, a := range f.Authority {
		if a.Version != nil || a.ValidUntil != nil {
			return nil, fmt.Errorf("%w: version or valid-until is in the wrong place, below an [[authority]]", errFormat)
		}
		e := Entry{a.ID, a.Name, a.Fingerprint}
		if err := e.check(); err != nil {
			return nil, fmt.Errorf("%w: accounting authority %d (%q): %w", errFormat, i+1, excerpt.Of(e.ID), err)
		}
		if _, twice := l.entries[e.ID]; twice {
			return nil, fmt.Errorf("%w: accounting authority %d: the ID %s is listed twice", errFormat, i+1, e.ID)
		}
		l.entries[e.ID] = e
	}
	return l, nil
}

func (e Entry) check() error {
	if len(e.ID) != 8 || strings.Trim(e.ID, "0123456789abcdef") != "" {
		return errors.New("id: expected the node ID, 8 lowercase hex digits")
	}
	// The name is displayed on terminals, and people rely on it: escape sequences, changes of
	// the text direction, and characters without width are not allowed.
	if e.Name == "" || len(e.Name) > maxName || strings.ContainsFunc(e.Name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("name: expected 1 to %d bytes of printable text", maxName)
	}
	if err := checkFingerprint(e.Fingerprint); err != nil {
		return fmt.Errorf("fingerprint: %w", err)
	}
	return nil
}

// printable makes text from the list safe for a message that does not quote it.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, excerpt.Limit(s, 200))
}
