package pki

import (
	"encoding/asn1"
	"strings"
	"testing"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

func oneName(tag cbasn1.Tag, value string) []byte {
	return dn(tlv(0x31, ava(oidOrganization, tag, value)))
}

// Names are compared by their text, not by its encoding (RFC 5280, section 7.1). If
// it is uncertain whether two names are equal, the result is unsure.
func TestNameCompare(t *testing.T) {
	const utf8, printable, teletex, ia5 = cbasn1.UTF8String, cbasn1.PrintableString, cbasn1.T61String, cbasn1.IA5String
	for _, tt := range []struct {
		what string
		a, b []byte
		want match
	}{
		{"same", oneName(utf8, "Node"), oneName(utf8, "Node"), equals},
		{"string type", oneName(utf8, "Node"), oneName(printable, "Node"), equals},
		{"TeletexString", oneName(utf8, "Node"), oneName(teletex, "Node"), equals},
		{"IA5String", oneName(utf8, "Node"), oneName(ia5, "Node"), equals},
		{"VisibleString", oneName(utf8, "Node"), oneName(tagVisibleString, "Node"), equals},
		{"NumericString", oneName(utf8, "12"), oneName(tagNumericString, "12"), equals},
		{"BMPString", oneName(utf8, "No"), oneName(tagBMPString, "\x00N\x00o"), equals},
		{"UniversalString", oneName(utf8, "No"), oneName(tagUniversalString, "\x00\x00\x00N\x00\x00\x00o"), equals},
		{"case", oneName(utf8, "NODE"), oneName(utf8, "node"), equals},
		{"white space", oneName(utf8, "  a \t\n b "), oneName(utf8, "a b"), equals},
		{"every white space", oneName(utf8, "a\tb\nc\vd\fe\rf g"), oneName(utf8, "a b c d e f g"), equals},
		{"every letter", oneName(utf8, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"), oneName(utf8, "abcdefghijklmnopqrstuvwxyz"), equals},
		{"characters beside the letters", oneName(utf8, "@["), oneName(utf8, "`{"), differs},
		{"the last plain character", oneName(utf8, "~a"), oneName(utf8, "~b"), differs},
		{"the first character after it", oneName(utf8, "\x7fa"), oneName(utf8, "\x7fb"), unsure},
		{"the last character of Unicode", oneName(utf8, "\U0010ffff"), oneName(tagUniversalString, "\x00\x10\xff\xff"), equals},
		{"white space only", oneName(utf8, " "), oneName(utf8, ""), equals},
		{"space or none", oneName(utf8, "a b"), oneName(utf8, "ab"), differs},
		{"text", oneName(utf8, "Node"), oneName(utf8, "Nodes"), differs},
		{"prefix", oneName(utf8, ""), oneName(utf8, "Node"), differs},
		{"attribute type", oneName(utf8, "Node"), dn(rdnOU("Node")), differs},
		{"same in another script", oneName(utf8, "Възел"), oneName(utf8, "Възел"), equals},
		{"BMPString beyond ASCII", oneName(utf8, "é"), oneName(tagBMPString, "\x00\xe9"), equals},
		{"TeletexString as Latin-1", oneName(utf8, "é"), oneName(teletex, "\xe9"), equals},
		{"case beyond ASCII", oneName(utf8, "é"), oneName(utf8, "É"), unsure},
		{"composed or not", oneName(utf8, "é"), oneName(utf8, "e\u0301"), unsure},
		{"Kelvin sign", oneName(utf8, "K"), oneName(utf8, "\u212a"), unsure},
		{"dotless i", oneName(utf8, "i"), oneName(utf8, "ı"), unsure},
		{"soft hyphen", oneName(utf8, "node"), oneName(utf8, "no\u00adde"), unsure},
		{"NUL", oneName(utf8, "node"), oneName(utf8, "node\x00"), unsure},
		{"not text", oneName(cbasn1.OCTET_STRING, "x"), oneName(cbasn1.OCTET_STRING, "x"), equals},
		{"other bytes", oneName(cbasn1.OCTET_STRING, "x"), oneName(cbasn1.OCTET_STRING, "X"), unsure},
		{"not text or text", oneName(cbasn1.OCTET_STRING, "x"), oneName(utf8, "x"), unsure},
		{"sets in any order",
			dn(tlv(0x31, ava(oidOrganization, utf8, "a"), ava(oidCommonName, utf8, "b"))),
			dn(tlv(0x31, ava(oidCommonName, utf8, "B"), ava(oidOrganization, utf8, "A"))), equals},
		{"sets of other values",
			dn(tlv(0x31, ava(oidOrganization, utf8, "a"), ava(oidCommonName, utf8, "b"))),
			dn(tlv(0x31, ava(oidOrganization, utf8, "b"), ava(oidCommonName, utf8, "a"))), differs},
		{"part of a set", dn(tlv(0x31, ava(oidOrganization, utf8, "a"), ava(oidCommonName, utf8, "b"))),
			oneName(utf8, "a"), differs},
		{"set or sequence", dn(tlv(0x31, ava(oidOrganization, utf8, "a"), ava(oidCommonName, utf8, "b"))),
			dn(rdnO("a"), rdnCN("b")), differs},
		{"order", dn(rdnO("a"), rdnCN("b")), dn(rdnCN("b"), rdnO("a")), differs},
		{"more", dn(rdnO("a")), dn(rdnO("a"), rdnCN("b")), differs},
		{"a certain difference after an unsure one", dn(rdnO("é"), rdnCN("a")), dn(rdnO("É"), rdnCN("b")), differs},
		{"empty", dn(), dn(), equals},
	} {
		a, err := parseName(tt.a)
		if err != nil {
			t.Errorf("%s: %v", tt.what, err)
			continue
		}
		b, err := parseName(tt.b)
		if err != nil {
			t.Errorf("%s: %v", tt.what, err)
			continue
		}
		if got := a.compare(b); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.what, got, tt.want)
		}
		if got := b.compare(a); got != tt.want {
			t.Errorf("%s, in reverse order: got %d, want %d", tt.what, got, tt.want)
		}
	}
}

// parseName refuses what is not a name, and names whose comparison would be
// ambiguous or costly.
func TestParseNameRefuses(t *testing.T) {
	var many, wide [][]byte
	for i := range maxRDNs + 1 {
		many = append(many, rdnO("x"))
		wide = append(wide, ava(append(oidCommonName[:3:3], 100+i), cbasn1.UTF8String, "x"))
	}
	for what, der := range map[string][]byte{
		"attribute twice in an RDN":   dn(tlv(0x31, ava(oidOrganization, cbasn1.UTF8String, "a"), ava(oidOrganization, cbasn1.UTF8String, "b"))),
		"invalid UTF-8":               oneName(cbasn1.UTF8String, "\xff"),
		"PrintableString with 8 bits": oneName(cbasn1.PrintableString, "é"),
		"PrintableString with 0x80":   oneName(cbasn1.PrintableString, "\x80"),
		"odd BMPString":               oneName(tagBMPString, "\x00a\x00"),
		"BMPString with a surrogate":  oneName(tagBMPString, "\xd8\x00\xdc\x00"),
		"UniversalString too large":   oneName(tagUniversalString, "\x00\x11\x00\x00"),
		"UniversalString of 2^31":     oneName(tagUniversalString, "\x80\x00\x00a"),
		"UniversalString negative":    oneName(tagUniversalString, "\xff\xff\xff\xff"),
		"no value":                    dn(tlv(0x31, tlv(0x30, tlv(0x06, []byte{0x55, 4, 10})))),
		"three parts":                 dn(tlv(0x31, tlv(0x30, tlv(0x06, []byte{0x55, 4, 10}), tlv(0x0c), tlv(0x0c)))),
		"empty OID":                   dn(tlv(0x31, tlv(0x30, tlv(0x06), tlv(0x0c)))),
		"length with leading zeros":   {0x30, 0x81, 0x00},
		"indefinite length":           {0x30, 0x80, 0, 0},
		"too many RDNs":               dn(many...),
		"too many attributes":         dn(tlv(0x31, wide...)),
	} {
		if n, err := parseName(der); err == nil {
			t.Errorf("%s: got %v, want an error", what, n)
		}
	}
}

// A subtree contains the names that begin with its base.
func TestNameContains(t *testing.T) {
	a, ab, abc := dn(rdnO("a")), dn(rdnO("A"), rdnOU("b")), dn(rdnO("a"), rdnOU("B"), rdnCN("c"))
	for _, tt := range []struct {
		base, name []byte
		want       match
	}{
		{dn(), a, equals}, {a, a, equals}, {a, ab, equals}, {ab, abc, equals}, {a, abc, equals},
		{ab, a, differs}, {abc, ab, differs}, {dn(rdnOU("b")), ab, differs}, {a, dn(), differs},
		{dn(rdnO("á")), abc, unsure},
	} {
		base, err := parseName(tt.base)
		check(t, err)
		n, err := parseName(tt.name)
		check(t, err)
		if got := base.contains(n); got != tt.want {
			t.Errorf("%v contains %v: got %d, want %d", base, n, got, tt.want)
		}
	}
}

// The text of a name has every attribute, those of one set by type, and an empty name has
// a text too.
func TestNameText(t *testing.T) {
	for want, der := range map[string][]byte{
		"(empty name)": dn(),
		`O="a",OU="b",serialNumber="c",2.5.4.3="d"`: dn(rdnO("a"), rdnOU("b"), tlv(0x31, ava(oidSerialNumber, cbasn1.PrintableString, "c")), rdnCN("d")),
		`2.5.4.3="b"+O="a"`:                         dn(tlv(0x31, ava(oidCommonName, cbasn1.UTF8String, "b"), ava(oidOrganization, cbasn1.UTF8String, "a"))),
	} {
		n, err := parseName(der)
		check(t, err)
		if got := n.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// The text of any name is short and has no control characters, so that it can be
// logged.
func TestNameString(t *testing.T) {
	var rdns [][]byte
	for range maxRDNs {
		rdns = append(rdns, tlv(0x31, ava(asn1.ObjectIdentifier{1, 2, 3, 4}, cbasn1.UTF8String, strings.Repeat("\n\x1b[2J", 1000))))
	}
	n, err := parseName(dn(rdns...))
	check(t, err)
	if s := n.String(); len(s) > 300 || strings.ContainsAny(s, "\n\x1b") {
		t.Errorf("%d characters: %.300s", len(s), s)
	}
}
