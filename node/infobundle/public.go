package infobundle

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"iter"
	"regexp"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"peerlink/internal/excerpt"
	"peerlink/internal/textfile"
)

// secretText matches text in private keys, encrypted or not, in PEM or of PGP, PuTTY and age, and
// in the shares of a root key.
var secretText = regexp.MustCompile(`-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----|PuTTY-User-Key-File-[0-9]|AGE-SECRET-KEY-|PEERLINK-SHARE-[0-9]+:|(?m)^Share [0-9]+ of [0-9]+ of a root key\.`)

// secretName matches the names of files that probably hold a passphrase, or a private key in a
// container format.
var secretName = regexp.MustCompile(`(?i)(^|[/._-])(pass(word|phrase|wd)?s?|secrets?)([._-]|$)|\.(p12|pfx|jks|keystore|kdbx|ppk)$`)

// pbes2 is the object identifier near the beginning of an encrypted key in DER.
var pbes2 = []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d}

// strayName matches the names of core dumps, which may hold any secret, and of files beside
// stomp.toml that are probably meant to be stomp.toml, or an earlier one: Notepad saves
// stomp.toml as stomp.toml.txt.
var strayName = regexp.MustCompile(`(?i)((^|/)(core(\.[0-9]+)?|vgcore\.[0-9]+)|^(stomp\.toml|updated-at\.txt)\.[^/]*)$`)

// CheckPublic checks that the name and content of a file of the node's own nodeinfo do not
// indicate a secret or a mistake, because info-bundles are public. The error contains the
// name of the file.
func CheckPublic(f File) error {
	switch {
	case holdsKey(f.Data):
		return fmt.Errorf("file %q holds a private key, or a share of one, and everybody gets what is in an info-bundle: move it out of the folder", excerpt.Of(f.Name))
	case secretName.MatchString(f.Name):
		return fmt.Errorf("file %q has the name of a file with a secret in it, and everybody gets what is in an info-bundle: move it out of the folder, or rename it if it has no secret in it", excerpt.Of(f.Name))
	case strayName.MatchString(f.Name):
		return fmt.Errorf("file %q has the name of a core dump or of a copy of a node's file, and everybody gets what is in an info-bundle: move it out of the folder, or give it its right name", excerpt.Of(f.Name))
	}
	return nil
}

// holdsKey reports whether data contains a private key in PEM or a similar format or in
// base64, or is a private key in DER.
func holdsKey(data []byte) bool {
	if text, err := textfile.Decode(data); err == nil { // fails for DER
		data = text
	}
	if secretText.Match(data) || isKey(data) {
		return true
	}
	for text := range base64Texts(data) {
		if isKey(decodeBase64(text)) {
			return true
		}
	}
	return false
}

// minBase64Line is the minimum length of a line of text that may be a key in base64, except the
// last one.
const minBase64Line = 40

// base64Texts yields the parts of data that may be keys in base64, without the lines of PEM around
// them: lines of at least minBase64Line characters, and one shorter line after them. It takes time
// proportional to the size of data, unlike a regular expression.
func base64Texts(data []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(data) > 0 {
			n := base64Length(data)
			if n < minBase64Line {
				data = data[max(n, 1):]
				continue
			}
			end := n + padding(data[n:])
			for long := true; long; {
				rest := bytes.TrimLeft(data[end:], " \t\r\n\f")
				n := base64Length(rest)
				if n == 0 || len(rest) == len(data)-end {
					break
				}
				end = len(data) - len(rest) + n + padding(rest[n:])
				long = n >= minBase64Line
			}
			if !yield(data[:end]) {
				return
			}
			data = data[end:]
		}
	}
}

// base64Length returns the number of characters of base64, of either alphabet and without padding,
// at the beginning of data.
func base64Length(data []byte) int {
	for i, c := range data {
		switch {
		case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '+', c == '/', c == '_', c == '-':
		default:
			return i
		}
	}
	return len(data)
}

// padding returns the number of characters of padding at the beginning of data.
func padding(data []byte) int { return len(data) - len(bytes.TrimLeft(data, "=")) }

// decodeBase64 decodes text in base64, of either alphabet, with or without padding. It
// returns what it could decode.
func decodeBase64(text []byte) []byte {
	plain := bytes.Map(func(r rune) rune {
		switch r {
		case '-':
			return '+'
		case '_':
			return '/'
		case '=', ' ', '\t', '\r', '\n', '\f':
			return -1
		}
		return r
	}, text)
	data := make([]byte, base64.RawStdEncoding.DecodedLen(len(plain)))
	n, _ := base64.RawStdEncoding.Decode(data, plain)
	return data[:n]
}

// isKey reports whether data begins with a private key in DER, encrypted or not, also one of a kind
// that this program does not support. It checks the structure only, because x509's parsers
// allocate much for data that is not a key.
func isKey(data []byte) bool {
	if bytes.Contains(data[:min(len(data), 32)], pbes2) {
		return true
	}
	der := cryptobyte.String(data)
	var key, version, algorithm, secret cryptobyte.String
	if !der.ReadASN1(&key, asn1.SEQUENCE) || !key.ReadASN1(&version, asn1.INTEGER) || len(version) != 1 || version[0] > 1 {
		return false
	}
	switch {
	case key.PeekASN1Tag(asn1.SEQUENCE): // PKCS #8
		return key.ReadASN1(&algorithm, asn1.SEQUENCE) && algorithm.SkipASN1(asn1.OBJECT_IDENTIFIER) && key.ReadASN1(&secret, asn1.OCTET_STRING)
	case key.PeekASN1Tag(asn1.OCTET_STRING): // SEC 1
		return key.ReadASN1(&secret, asn1.OCTET_STRING) && 16 <= len(secret) && len(secret) <= 128
	}
	for range 8 { // PKCS #1
		if !key.SkipASN1(asn1.INTEGER) {
			return false
		}
	}
	return true
}
