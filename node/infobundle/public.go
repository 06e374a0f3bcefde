package infobundle

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"regexp"

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

// base64Text matches text that may be a key in base64, without the lines of PEM around it.
var base64Text = regexp.MustCompile(`[A-Za-z0-9+/_-]{40,}=*(\s+[A-Za-z0-9+/_-]{40,}=*)*(\s+[A-Za-z0-9+/_-]+=*)?`)

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
	for _, text := range base64Text.FindAll(data, -1) {
		if isKey(decodeBase64(text)) {
			return true
		}
	}
	return false
}

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

// isKey reports whether data begins with a private key in DER, encrypted or not.
func isKey(data []byte) bool {
	if bytes.Contains(data[:min(len(data), 32)], pbes2) {
		return true
	}
	var key asn1.RawValue
	if _, err := asn1.Unmarshal(data, &key); err != nil || key.Tag != asn1.TagSequence {
		return false
	}
	data = key.FullBytes
	for _, parse := range []func([]byte) error{
		func(der []byte) error { _, err := x509.ParsePKCS8PrivateKey(der); return err },
		func(der []byte) error { _, err := x509.ParsePKCS1PrivateKey(der); return err },
		func(der []byte) error { _, err := x509.ParseECPrivateKey(der); return err },
	} {
		if parse(data) == nil {
			return true
		}
	}
	return false
}
