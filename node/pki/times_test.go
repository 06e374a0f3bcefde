package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"testing"
)

// withEnd returns the certificate with another end, in the text of a GeneralizedTime, signed
// by key.
func withEnd(t *testing.T, cert *x509.Certificate, end string, key crypto.Signer) *x509.Certificate {
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
	tbs.Validity.End = asn1.RawValue{Tag: asn1.TagGeneralizedTime, Bytes: []byte(end)}
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

// Certificates with a time that is not in UTC are refused: crypto/x509 accepts them, and in
// UTC the time may be in the year 10000, which JSON can not represent. Then one peer's
// certificate would prevent output about all peers.
func TestTimesWithOffset(t *testing.T) {
	p := newPeers(t)
	for _, tt := range []struct {
		end  string
		want error
	}{{"99991231235959Z", nil}, {"99991231235959-1200", ruleFormat}, {"99991231235959+1200", ruleFormat}} {
		root := withEnd(t, p.ca.Cert, tt.end, p.ca.Key)
		if root.NotAfter.IsZero() {
			t.Fatal("no end")
		}
		if _, err := CheckRoot(root, testNow); !errors.Is(err, tt.want) {
			t.Errorf("root that ends at %s: got %v, want %v", tt.end, err, tt.want)
		}
		peerCert := withEnd(t, p.peerCA, tt.end, p.aa.Key)
		if _, err := CheckPeer(peerCert, p.aa.Cert, p.ca.Cert, testNow); !errors.Is(err, tt.want) {
			t.Errorf("peer certificate that ends at %s: got %v, want %v", tt.end, err, tt.want)
		}
		leaf := withEnd(t, p.serverCA, tt.end, p.ca.Key)
		if _, err := VerifyServer(raw([]*x509.Certificate{leaf}), p.ca.Cert, p.ca.id, testNow); !errors.Is(err, tt.want) {
			t.Errorf("server certificate that ends at %s: got %v, want %v", tt.end, err, tt.want)
		}
	}
}
