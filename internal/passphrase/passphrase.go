// Package passphrase decides which passphrases may protect a root key. A key file is
// decrypted with exactly the bytes with which it was encrypted, so it must be possible to
// enter the passphrase at a prompt: on any terminal, with any editor's file, in twenty
// years.
//
// Unicode has several byte sequences for many texts. Keys are therefore encrypted with the
// normal form NFC of the passphrase ([Normal]), which can be computed from all of them, and
// keys of other programs are opened with the text as it is, its NFC or its NFD
// ([Input.Candidates]).
package passphrase

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
	"golang.org/x/text/unicode/rangetable"

	"peerlink/internal/textfile"
)

// maxBytes is the maximum length of a passphrase in bytes. A line on a terminal of macOS has up
// to 1023 bytes, on one of Linux 4095, and at OpenSSL's prompt 1023; longer ones are truncated
// without an error. maxBytes is less, so that no truncated passphrase is accepted.
const maxBytes = 1000

// Input is a passphrase that was entered, or read from a file, to decrypt a key.
type Input struct {
	// Text is the passphrase as a prompt returns it, nil if that is not known.
	Text []byte
	// Err is the reason why Text is nil.
	Err error
	// raw is the first line of the file, if it differs from Text. Earlier versions used
	// it.
	raw []byte
	// forms are the normal forms of Text.
	forms [][]byte
}

// FromFile returns the passphrase in the first line of a file. A byte order mark and
// UTF-16, as written by Windows programs, are decoded. If that is not possible, Err of the
// result is set; FromFile itself fails only if the line is empty.
func FromFile(data []byte) (*Input, error) {
	var g Input
	raw := firstLine(data)
	text, err := textfile.Decode(data)
	if err != nil {
		g.Err = err
	} else {
		g.Text = firstLine(text)
	}
	if len(raw) == 0 || err == nil && len(g.Text) == 0 {
		return nil, errors.New("the first line is empty: expected the passphrase there")
	}
	if !bytes.Equal(raw, g.Text) {
		g.raw = raw
	}
	return &g, nil
}

func firstLine(data []byte) []byte {
	line, _, _ := bytes.Cut(data, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r"))
}

// Candidates returns the passphrases to try: the text, with which other programs encrypt,
// its normal forms (some keyboards send é as one character, others as two), and the line
// that earlier versions used.
func (g *Input) Candidates() [][]byte {
	var all [][]byte
	add := func(pass []byte) {
		same := func(other []byte) bool { return bytes.Equal(pass, other) }
		if len(pass) > 0 && !slices.ContainsFunc(all, same) {
			all = append(all, pass)
		}
	}
	add(g.Text)
	if utf8.Valid(g.Text) && len(g.Text) <= maxBytes {
		g.forms = [][]byte{normal(norm.NFC, g.Text), normal(norm.NFD, g.Text)}
		add(g.forms[0])
		add(g.forms[1])
	}
	add(g.raw)
	return all
}

// Typeable returns the passphrase as a prompt returns it, byte for byte, or an error if it
// can not be entered at a prompt.
func (g *Input) Typeable() ([]byte, error) {
	if g.Err != nil {
		return nil, g.Err
	}
	return g.Text, Check(g.Text)
}

// Converted reports whether the file's bytes differ from the passphrase: it has a byte
// order mark, or is UTF-16.
func (g *Input) Converted() bool { return g.Err == nil && g.raw != nil }

// Wipe overwrites the passphrase. g may be nil.
func (g *Input) Wipe() {
	if g == nil {
		return
	}
	clear(g.Text)
	clear(g.raw)
	for _, form := range g.forms {
		clear(form)
	}
}

// normal returns a copy of the text in a normal form.
func normal(form norm.Form, text []byte) []byte { return form.Append(nil, text...) }

// Normal returns the form of a passphrase with which a key is encrypted, in new memory. It
// is the normal form NFC, which is among the [Input.Candidates] of all texts that Unicode
// regards as equivalent. A passphrase that [Check] refuses is returned as it is.
func Normal(pass []byte) []byte {
	if Check(pass) != nil {
		return bytes.Clone(pass)
	}
	return normal(norm.NFC, pass)
}

// Forms returns the passphrase as it is, and its normal forms NFC and NFD: what the
// keyboards of different systems send for it. Equal ones are returned once. They are in new
// memory.
func Forms(pass []byte) [][]byte { return (&Input{Text: bytes.Clone(pass)}).Candidates() }

// Same reports whether two passphrases are the same text, whatever the form of each.
func Same(a, b []byte) bool {
	a, b = normal(norm.NFC, a), normal(norm.NFC, b)
	defer clear(a)
	defer clear(b)
	return bytes.Equal(a, b)
}

// Mixed reports whether the passphrase is in neither of the normal forms NFC and NFD. A
// key that is encrypted with such a passphrase does not open with its normal forms, which
// are what other keyboards send.
func Mixed(pass []byte) bool {
	return utf8.Valid(pass) && !norm.NFC.IsNormal(pass) && !norm.NFD.IsNormal(pass)
}

// Check checks that a passphrase can be typed, so that a prompt returns it byte for byte:
// a terminal interprets control characters, sends UTF-8, and truncates long lines. An empty
// passphrase is not refused.
func Check(pass []byte) error {
	if len(pass) > maxBytes {
		return fmt.Errorf("the passphrase has %d bytes: expected at most %d, since prompts cut longer ones", len(pass), maxBytes)
	}
	if !utf8.Valid(pass) {
		return errors.New("the passphrase is not text in UTF-8, and could never be typed: expected letters, digits, spaces and signs; a file must be saved as UTF-8")
	}
	for _, r := range string(pass) {
		switch {
		case unicode.IsControl(r):
			return fmt.Errorf("the passphrase has a control character in it (%U), which no prompt delivers: expected letters, digits, spaces and signs", r)
		case r == utf8.RuneError || !unicode.IsGraphic(r) || unicode.In(r, invisible...):
			return fmt.Errorf("the passphrase has a character in it that can not be seen (%U), and that nobody would type: expected letters, digits, spaces and signs", r)
		}
	}
	return checkForms(pass)
}

// checkForms checks that the normal forms of a passphrase can be typed too.
func checkForms(pass []byte) error {
	nfc, nfd := normal(norm.NFC, pass), normal(norm.NFD, pass)
	defer clear(nfc)
	defer clear(nfd)
	if n := max(len(nfc), len(nfd)); n > maxBytes {
		return fmt.Errorf("the passphrase has %d bytes on a keyboard that sends letters and accents differently (NFC or NFD): expected at most %d, since prompts cut longer ones", n, maxBytes)
	}
	// The package norm breaks up long sequences of combining characters.
	if bytes.ContainsRune(nfc, combiningGraphemeJoiner) || bytes.ContainsRune(nfd, combiningGraphemeJoiner) {
		return errors.New("the passphrase has more than 30 accents on one letter: expected fewer")
	}
	return nil
}

const combiningGraphemeJoiner = '\u034f'

// invisible has the characters that are graphic by their category, but not visible: the
// graphic ones with Unicode's property Default_Ignorable_Code_Point
// (DerivedCoreProperties), and the Braille pattern without dots.
var invisible = []*unicode.RangeTable{
	unicode.Other_Default_Ignorable_Code_Point,
	unicode.Variation_Selector,
	rangetable.New(0x2800),
}

// Warnings returns properties that can make it difficult to type the passphrase again.
func Warnings(pass []byte) []string {
	var all []string
	text := string(pass)
	first, _ := utf8.DecodeRuneInString(text)
	last, _ := utf8.DecodeLastRuneInString(text)
	if unicode.IsSpace(first) || unicode.IsSpace(last) {
		all = append(all, "The passphrase begins or ends with a space, which is part of it and which nobody sees on paper.")
	}
	if slices.ContainsFunc([]rune(text), func(r rune) bool { return r != ' ' && unicode.IsSpace(r) }) {
		all = append(all, "The passphrase has a space in it that is not the one of the space bar.")
	}
	switch {
	case !norm.NFC.IsNormal(pass):
		all = append(all, "The passphrase has letters with accents, or others that Unicode writes in several ways, and is not in the form NFC.\n"+
			"The key is encrypted with the form NFC. peerlink opens it with every form; OpenSSL and the reference scripts,\n"+
			"which take what is typed, need the form NFC.")
	case !norm.NFD.IsNormal(pass):
		all = append(all, "The passphrase has letters with accents, or others that Unicode writes in several ways.\n"+
			"peerlink opens the key with every form that a keyboard sends; OpenSSL and the reference scripts, which take what\n"+
			"is typed, need the form of this one (NFC).")
	}
	return all
}
