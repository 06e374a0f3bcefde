package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// withTimes returns the certificate with another beginning and end, signed by key.
func withTimes(t *testing.T, cert *x509.Certificate, begin, end asn1.RawValue, key crypto.Signer) *x509.Certificate {
	t.Helper()
	var outer struct {
		TBS, Algorithm asn1.RawValue
		Signature      asn1.BitString
	}
	var tbs struct {
		Version                   asn1.RawValue `asn1:"optional,tag:0"`
		Serial, Algorithm, Issuer asn1.RawValue
		Validity                  struct{ Begin, End asn1.RawValue }
		Subject, Key              asn1.RawValue
		Extensions                asn1.RawValue `asn1:"optional,tag:3"`
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := asn1.Unmarshal(cert.Raw, &outer)
	check(err)
	_, err = asn1.Unmarshal(outer.TBS.FullBytes, &tbs)
	check(err)
	tbs.Validity.Begin, tbs.Validity.End = begin, end
	outer.TBS.FullBytes, err = asn1.Marshal(tbs)
	check(err)
	digest := sha256.Sum256(outer.TBS.FullBytes)
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	check(err)
	outer.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	der, err := asn1.Marshal(outer)
	check(err)
	changed, err := x509.ParseCertificate(der)
	check(err)
	return changed
}

func utcTime(text string) asn1.RawValue {
	return asn1.RawValue{Tag: asn1.TagUTCTime, Bytes: []byte(text)}
}

func generalizedTime(text string) asn1.RawValue {
	return asn1.RawValue{Tag: asn1.TagGeneralizedTime, Bytes: []byte(text)}
}

// Certificates with a time in a form that RFC 5280 forbids are refused by every reader:
// crypto/x509 accepts offsets from UTC, with which the time may be in the year 10000 in UTC. That
// JSON can not represent: one peer's certificate would prevent output about all peers.
func TestTimes(t *testing.T) {
	begin, end := utcTime("200101000000Z"), generalizedTime("99991231235959Z")
	for _, tt := range []struct {
		name       string
		begin, end asn1.RawValue
		want       error
	}{
		{"as OpenSSL writes them", begin, end, nil},
		{"UTCTime at the end", begin, utcTime("491231235959Z"), nil},
		{"GeneralizedTime before 2050", generalizedTime("20200101000000Z"), end, nil},
		{"year 10000 in UTC", begin, generalizedTime("99991231235959-1200"), ErrTimes},
		{"year 9999 in UTC", begin, generalizedTime("99991231235959+1200"), ErrTimes},
		{"offset at the beginning", generalizedTime("20200101000000+0100"), end, ErrTimes},
		{"UTCTime with an offset", utcTime("200101000000+0100"), end, ErrTimes},
		{"UTCTime without seconds", utcTime("2001010000Z"), end, ErrTimes},
		{"UTCTime without seconds, with an offset", begin, utcTime("4912312359-0100"), ErrTimes},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for reader, err := range readWithTimes(t, tt.begin, tt.end) {
				if !errors.Is(err, tt.want) {
					t.Errorf("%s: got %v, want %v", reader, err, tt.want)
				}
			}
		})
	}
}

// readWithTimes returns the errors of the functions that read certificates, by the name of the
// function, for valid certificates with these times.
func readWithTimes(t *testing.T, begin, end asn1.RawValue) map[string]error {
	p := newPeers(t)
	with := func(cert *x509.Certificate, key crypto.Signer) *x509.Certificate {
		return withTimes(t, cert, begin, end, key)
	}
	root, peer, leaf := with(p.ca.Cert, p.ca.Key), with(p.peerCA, p.aa.Key), with(p.serverCA, p.ca.Key)
	errs := make(map[string]error)
	_, errs["ParseCertificate"] = ParseCertificate(root.Raw)
	_, errs["ParseCertificatePEM"] = ParseCertificatePEM(EncodeCertificatePEM(root))
	_, errs["CheckRoot"] = CheckRoot(root, testNow)
	if end.Tag == asn1.TagGeneralizedTime { // otherwise too early for a peer certificate
		_, errs["CheckPeer"] = CheckPeer(peer, p.aa.Cert, p.ca.Cert, testNow)
	}
	_, errs["VerifyServer"] = VerifyServer(raw([]*x509.Certificate{leaf}), p.ca.Cert, p.ca.id, testNow)
	_, _, errs["VerifyClient, leaf"] = VerifyClient(raw([]*x509.Certificate{leaf, p.peerCA}), p.aa.Cert, testNow)
	_, _, errs["VerifyClient, peer certificate"] = VerifyClient(raw([]*x509.Certificate{p.serverCA, peer}), p.aa.Cert, testNow)
	_, errs["Verify, leaf"] = Verify(leaf, VerifyOptions{Trusted: []*x509.Certificate{p.ca.Cert}, Time: testNow})
	_, errs["Verify, root"] = Verify(p.serverCA, VerifyOptions{Trusted: []*x509.Certificate{root}, Time: testNow})
	return errs
}

// Certificates that OpenSSL makes are read, before and after the year 2050, in which the type of
// their times changes.
func TestTimesOfOpenSSL(t *testing.T) {
	dir := t.TempDir()
	for _, days := range []string{"1", "36500"} {
		mustOpenSSL(t, dir, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "key", "-subj", "/CN=x", "-days", days, "-out", "cert")
		data, err := os.ReadFile(filepath.Join(dir, "cert"))
		if err == nil {
			_, err = ParseCertificatePEM(data)
		}
		if err != nil {
			t.Errorf("valid for %s days: %v", days, err)
		}
	}
}

// Every certificate of this program is parsed by ParseCertificate, so that none is read without
// its check of the times.
func TestAllCertificatesAreParsedHere(t *testing.T) {
	parses := regexp.MustCompile(`x509\.ParseCertificates?\(|(X509|LoadX509)KeyPair\(`)
	var found []string
	check(t, filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		if parses.Match(source) {
			found = append(found, filepath.Base(path))
		}
		return err
	}))
	if want := []string{"times.go"}; !slices.Equal(found, want) {
		t.Errorf("these files parse certificates: %v, want %v", found, want)
	}
}
