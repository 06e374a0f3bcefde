package pki

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"testing"
)

// parseNameConstraints refuses constraints that it does not understand completely.
func TestParseNameConstraintsRefuses(t *testing.T) {
	base := dirName(dn(rdnO("a")))
	good := subtree(base)
	min := func(v ...byte) []byte { return tlv(0x80, v) }
	max := func(v ...byte) []byte { return tlv(0x81, v) }
	ext := func(parts ...[]byte) []byte { return tlv(0x30, parts...) }
	for what, der := range map[string][]byte{
		"permitted":         ext(permit(good)),
		"excluded":          ext(exclude(good)),
		"both":              ext(permit(good, good), exclude(good)),
		"for crypto/x509":   ext(permit(subtree(tlv(0x82, []byte("example.com"))), subtree(tlv(0x81)), subtree(tlv(0x86)), subtree(tlv(0x87)))),
		"empty name":        ext(permit(subtree(dirName(dn())))),
		"minimum 0 written": ext(permit(subtree(base, min(0)))),
	} {
		if _, err := parseNameConstraints(der); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, der := range map[string][]byte{
		"nothing":                      nil,
		"empty":                        ext(),
		"empty permitted":              ext(permit()),
		"empty excluded":               ext(exclude()),
		"empty permitted, excluded":    ext(permit(), exclude(good)),
		"permitted, empty excluded":    ext(permit(good), exclude()),
		"wrong order":                  ext(exclude(good), permit(good)),
		"permitted twice":              ext(permit(good), permit(good)),
		"third part":                   ext(permit(good), exclude(good), tlv(0xa2, good)),
		"trailing data":                append(ext(permit(good)), 0),
		"cut off":                      ext(permit(good))[:20],
		"not a SEQUENCE":               tlv(0x31, permit(good)),
		"primitive permitted":          ext(tlv(0x80, good)),
		"subtree without SEQUENCE":     ext(permit(base)),
		"empty subtree":                ext(permit(tlv(0x30))),
		"minimum 1":                    ext(permit(subtree(base, min(1)))),
		"minimum 256":                  ext(permit(subtree(base, min(1, 0)))),
		"minimum -1":                   ext(permit(subtree(base, min(0xff)))),
		"minimum of no bytes":          ext(permit(subtree(base, min()))),
		"minimum 0 in two bytes":       ext(permit(subtree(base, min(0, 0)))),
		"minimum twice":                ext(permit(subtree(base, min(0), min(0)))),
		"maximum":                      ext(permit(subtree(base, max(0)))),
		"minimum and maximum":          ext(permit(subtree(base, min(0), max(5)))),
		"excluded with a minimum":      ext(exclude(subtree(base, min(1)))),
		"DNS name with a maximum":      ext(permit(subtree(tlv(0x82, []byte("a.example")), max(0)))),
		"something after the base":     ext(permit(subtree(base, base))),
		"otherName":                    ext(permit(subtree(tlv(0xa0, []byte{0x06, 1, 42}, tlv(0xa0, tlv(0x0c)))))),
		"x400Address":                  ext(permit(subtree(tlv(0xa3, tlv(0x30))))),
		"ediPartyName":                 ext(permit(subtree(tlv(0xa5, tlv(0xa1, tlv(0x0c)))))),
		"registeredID":                 ext(permit(subtree(tlv(0x88, []byte{42})))),
		"registeredID excluded":        ext(permit(good), exclude(subtree(tlv(0x88, []byte{42})))),
		"unknown form":                 ext(permit(subtree(tlv(0x89)))),
		"implicitly tagged name":       ext(permit(subtree(tlv(0xa4, rdnO("a"))))),
		"primitive directoryName":      ext(permit(subtree(tlv(0x84, dn(rdnO("a")))))),
		"constructed dNSName":          ext(permit(subtree(tlv(0xa2, []byte("a.example"))))),
		"directoryName of two names":   ext(permit(subtree(tlv(0xa4, dn(rdnO("a")), dn(rdnO("b")))))),
		"malformed name":               ext(permit(subtree(dirName(dn(tlv(0x31)))))),
		"length in more bytes than it": {0x30, 0x81, 0x02, 0xa0, 0x00},
	} {
		if nc, err := parseNameConstraints(der); err == nil {
			t.Errorf("%s: got %v, want an error", what, nc)
		}
	}
}

// parseAltName refuses malformed names, so that no directoryName is hidden from the
// constraints.
func TestParseAltNameRefuses(t *testing.T) {
	for what, der := range map[string][]byte{
		"empty":                   tlv(0x30),
		"trailing data":           append(tlv(0x30, tlv(0x82)), 0),
		"primitive directoryName": tlv(0x30, tlv(0x84, dn(rdnO("a")))),
		"constructed dNSName":     tlv(0x30, tlv(0xa2)),
		"implicitly tagged name":  tlv(0x30, tlv(0xa4, rdnO("a"))),
		"cut off":                 {0x30, 4, 0xa4, 9, 0x30, 0},
	} {
		if names, err := parseAltName(der); err == nil {
			t.Errorf("%s: got %v, want an error", what, names)
		}
	}
}

// The constraint of a peer certificate has the bytes that OpenSSL writes for
// "permitted;dirName" with the same name.
func TestPermitOnly(t *testing.T) {
	want, err := hex.DecodeString("3061A05F305DA45B305931233021060355040A0C1A53776170746163756C6172204E6F6465732052656769737472793" +
		"11F301D060355040B0C164163636F756E74696E6720417574686F7269746965733111300F060355040513083030303030303031")
	check(t, err)
	ext, err := permitOnly(want[8:])
	check(t, err)
	if !ext.Critical || !bytes.Equal(ext.Value, want) {
		t.Errorf("got %x, critical %v, want %x", ext.Value, ext.Critical, want)
	}
}

// namesOf refuses a certificate with two extensions of the same kind, whatever
// program has parsed it.
func TestNamesOfRefusesDuplicates(t *testing.T) {
	narrow, wide := onlyB(), constraints(permit(subtree(dirName(dn()))))
	alt := altNames(false, dirName(nameB))
	for _, extensions := range [][]pkix.Extension{{narrow, wide}, {wide, narrow}, {alt, alt}} {
		if _, err := namesOf(&x509.Certificate{RawSubject: nameB, RawIssuer: nameA, Extensions: extensions}); err == nil {
			t.Errorf("accepted two extensions %v", extensions[0].Id)
		}
	}
	if _, err := namesOf(&x509.Certificate{RawSubject: nameB, RawIssuer: nameA, Extensions: []pkix.Extension{narrow, alt}}); err != nil {
		t.Error(err)
	}
}
