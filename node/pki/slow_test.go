package pki

import (
	"crypto/x509/pkix"
	"errors"
	"testing"
	"time"

	"peerlink/internal/costtest"
)

// Keys of strangers are not used, however many certificates they show: crypto/x509
// would verify a hundred signatures to find that none of them leads anywhere,
// which with such keys is the work of hundreds of handshakes.
func TestStrangersKeysAreNotUsed(t *testing.T) {
	p := newPeers(t)
	key, name := costtest.NewSlowKey(t, maxRSABits, maxRSAExponent), p.ca.Cert.RawSubject
	shown := [][]byte{certificate{subject: name, issuer: name, key: key}.der(t)}
	for i := range maxCertificates - 1 {
		shown = append(shown, certificate{subject: name, issuer: name, key: key, serial: int64(1000 + i),
			// crypto/x509 takes those without a difference for the same.
			extensions: []pkix.Extension{caAnyDepth(), keyUsageCA(), altNames(false, tlv(0x82, []byte{'a' + byte(i)}))}}.der(t))
	}
	start := costtest.Spent()
	_, _, err := VerifyClient(shown, p.aa.Cert, testNow)
	took := costtest.Spent() - start
	if !errors.Is(err, ruleIssuer) {
		t.Errorf("got %v, want %v", err, ruleIssuer)
	}
	// With the keys used it is more than half a second.
	if took > 200*time.Millisecond {
		t.Errorf("refused after %v", took)
	}
	t.Logf("refused after %v", took)
}
