package pki

import (
	"bytes"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Limits far above the size of real names, which bound the cost of comparisons.
const (
	maxRDNs       = 32
	maxAttributes = 8 // in one RDN
)

var errName = errors.New("malformed distinguished name")

// A name is a distinguished name (RFC 5280, section 4.1.2.4), parsed for comparison
// according to section 7.1.
type name []rdn

// An rdn is a set of attributes, sorted by type. No type occurs twice (X.501, section
// 9.3), so that two sets can be compared element by element.
type rdn []attribute

type attribute struct {
	oid   asn1.ObjectIdentifier
	tag   cbasn1.Tag
	value []byte // encoded content

	// text is the form for comparison, independent of the string type, letter case and
	// the amount of white space. It is empty if tag is not a string type.
	text string
	// plain is set if text has printable ASCII characters only. The comparison of two
	// plain texts is never unsure.
	plain bool
	// isText is set if tag is a string type.
	isText bool
}

// match is the result of a comparison. The order of the constants matters: the result for
// several parts is the minimum of the results for the parts.
type match int

const (
	differs match = iota
	// unsure means that the values may be equal or different: the texts have characters
	// that need Unicode normalization and case folding according to section 7.1 (RFC
	// 4518), and differ without these, or at least one value is not of a string type, and
	// the encodings differ.
	unsure
	equals
)

func parseName(der []byte) (name, error) {
	s := cryptobyte.String(der)
	n, err := readName(&s)
	if err != nil {
		return nil, err
	}
	if !s.Empty() {
		return nil, fmt.Errorf("%w: trailing data", errName)
	}
	return n, nil
}

func readName(s *cryptobyte.String) (name, error) {
	var rdns cryptobyte.String
	if !s.ReadASN1(&rdns, cbasn1.SEQUENCE) {
		return nil, errName
	}
	var n name
	for !rdns.Empty() {
		r, err := readRDN(&rdns)
		if err != nil {
			return nil, err
		}
		if len(n) == maxRDNs {
			return nil, fmt.Errorf("%w: more than %d components", errName, maxRDNs)
		}
		n = append(n, r)
	}
	return n, nil
}

func readRDN(s *cryptobyte.String) (rdn, error) {
	var set cryptobyte.String
	if !s.ReadASN1(&set, cbasn1.SET) || set.Empty() {
		return nil, errName
	}
	var r rdn
	for !set.Empty() {
		var seq, value cryptobyte.String
		var a attribute
		if !set.ReadASN1(&seq, cbasn1.SEQUENCE) ||
			!seq.ReadASN1ObjectIdentifier(&a.oid) ||
			!seq.ReadAnyASN1(&value, &a.tag) ||
			!seq.Empty() {
			return nil, errName
		}
		a.value = value
		if err := a.decode(); err != nil {
			return nil, err
		}
		if len(r) == maxAttributes {
			return nil, fmt.Errorf("%w: more than %d attributes in one component", errName, maxAttributes)
		}
		at, twice := slices.BinarySearchFunc(r, a, func(a, b attribute) int { return slices.Compare(a.oid, b.oid) })
		if twice {
			return nil, fmt.Errorf("%w: attribute %v twice in one component", errName, a.oid)
		}
		r = slices.Insert(r, at, a)
	}
	return r, nil
}

// decode sets text, plain and isText.
func (a *attribute) decode() error {
	chars, isText, err := decodeString(a.tag, a.value)
	if err != nil || !isText {
		return err
	}
	a.isText = true
	a.text, a.plain = fold(chars)
	return nil
}

// The string types that cryptobyte/asn1 does not name.
const (
	tagNumericString   = cbasn1.Tag(18)
	tagVisibleString   = cbasn1.Tag(26)
	tagUniversalString = cbasn1.Tag(28)
	tagBMPString       = cbasn1.Tag(30)
)

func decodeString(tag cbasn1.Tag, value []byte) (s string, isText bool, err error) {
	bad := func() (string, bool, error) { return "", true, fmt.Errorf("%w: invalid characters", errName) }
	switch tag {
	case cbasn1.UTF8String:
		if !utf8.Valid(value) {
			return bad()
		}
		return string(value), true, nil
	case cbasn1.PrintableString, cbasn1.IA5String, tagNumericString, tagVisibleString:
		for _, c := range value {
			if c >= utf8.RuneSelf {
				return bad()
			}
		}
		return string(value), true, nil
	case cbasn1.T61String:
		// TeletexStrings are read as Latin-1, as is usual in practice. Texts with characters
		// outside of ASCII are equal if they are equal in Latin-1; otherwise the comparison is
		// unsure.
		var b strings.Builder
		for _, c := range value {
			b.WriteRune(rune(c))
		}
		return b.String(), true, nil
	case tagBMPString, tagUniversalString:
		width := 2
		if tag == tagUniversalString {
			width = 4
		}
		if len(value)%width != 0 {
			return bad()
		}
		var b strings.Builder
		for chunk := range slices.Chunk(value, width) {
			c := uint32(binary.BigEndian.Uint16(chunk))
			if width == 4 {
				c = binary.BigEndian.Uint32(chunk)
			}
			if !utf8.ValidRune(rune(c)) { // 2^31 and more become negative, which is invalid too
				return bad()
			}
			b.WriteRune(rune(c))
		}
		return b.String(), true, nil
	}
	return "", false, nil
}

// fold returns text in the form for comparison: ASCII letters in lower case, without
// white space at the ends, and with single spaces elsewhere. Other characters are
// unchanged. Those outside of printable ASCII make the text not plain.
func fold(s string) (folded string, plain bool) {
	plain = true
	var b strings.Builder
	space := false
	for _, c := range s {
		switch {
		case c == ' ' || '\t' <= c && c <= '\r':
			space = true
			continue
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case c < ' ' || c > '~':
			plain = false
		}
		if space && b.Len() > 0 {
			b.WriteByte(' ')
		}
		space = false
		b.WriteRune(c)
	}
	return b.String(), plain
}

func (a attribute) compare(b attribute) match {
	if !a.oid.Equal(b.oid) {
		return differs
	}
	if a.isText && b.isText {
		switch {
		case a.text == b.text:
			return equals
		case a.plain && b.plain:
			return differs
		}
		return unsure
	}
	if a.tag == b.tag && slices.Equal(a.value, b.value) {
		return equals
	}
	return unsure
}

func (r rdn) compare(s rdn) match {
	if len(r) != len(s) {
		return differs
	}
	m := equals
	for i := range r {
		m = min(m, r[i].compare(s[i]))
	}
	return m
}

// contains compares n with the first RDNs of o. The result is equals if the subtree with the
// base n contains the name o (RFC 5280, section 4.2.1.10), and differs if it does not.
func (n name) contains(o name) match {
	if len(n) > len(o) {
		return differs
	}
	m := equals
	for i := range n {
		m = min(m, n[i].compare(o[i]))
	}
	return m
}

func (n name) compare(o name) match {
	if len(n) != len(o) {
		return differs
	}
	return n.contains(o)
}

// has reports whether the name has an attribute of the given type.
func (n name) has(oid asn1.ObjectIdentifier) bool {
	return slices.ContainsFunc(n, func(r rdn) bool {
		return slices.ContainsFunc(r, func(a attribute) bool { return a.oid.Equal(oid) })
	})
}

// marshal writes the DER of the name.
func (n name) marshal(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, r := range n {
			b.AddASN1(cbasn1.SET, r.marshal)
		}
	})
}

// marshal writes the attributes sorted by their encoding, as DER requires.
func (r rdn) marshal(b *cryptobyte.Builder) {
	encoded := make([][]byte, 0, len(r))
	for _, a := range r {
		var element cryptobyte.Builder
		element.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(a.oid)
			b.AddASN1(a.tag, func(b *cryptobyte.Builder) { b.AddBytes(a.value) })
		})
		der, err := element.Bytes()
		if err != nil {
			b.SetError(err)
			return
		}
		encoded = append(encoded, der)
	}
	slices.SortFunc(encoded, bytes.Compare)
	b.AddBytes(slices.Concat(encoded...))
}

// String returns the name for error messages. Attribute types other than those of
// Swaptacular names appear as object identifiers.
func (n name) String() string {
	if len(n) == 0 {
		return "(empty name)"
	}
	parts := make([]string, 0, len(n))
	for _, r := range n {
		values := make([]string, 0, len(r))
		for _, a := range r {
			typ := a.oid.String()
			switch {
			case a.oid.Equal(oidOrganization):
				typ = "O"
			case a.oid.Equal(oidOrganizationalUnit):
				typ = "OU"
			case a.oid.Equal(oidSerialNumber):
				typ = "serialNumber"
			}
			chars, _, _ := decodeString(a.tag, a.value)
			values = append(values, fmt.Sprintf("%s=%q", typ, clip(chars)))
		}
		parts = append(parts, strings.Join(values, "+"))
	}
	return clipText(strings.Join(parts, ","))
}
