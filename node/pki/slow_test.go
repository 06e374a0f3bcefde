package pki

import (
	"crypto/x509/pkix"
	"errors"
	"testing"
	"time"

	"peerlink/internal/costtest"
)

// The keys of unknown certificates are not used, however many certificates a client
// sends: crypto/x509 would verify a hundred signatures before it finds that no chain
// leads to the root, which with such keys takes as long as hundreds of handshakes.
func TestStrangersKeysAreNotUsed(t *testing.T) {
	p := newPeers(t)
	key, name := costtest.NewSlowKey(t, maxRSABits, maxRSAExponent), p.ca.Cert.RawSubject
	shown := [][]byte{certificate{subject: name, issuer: name, key: key}.der(t)}
	for i := range maxCertificates - 1 {
		shown = append(shown, certificate{subject: name, issuer: name, key: key, serial: int64(1000 + i),
			// crypto/x509 treats certificates without a difference as the same.
			extensions: []pkix.Extension{caAnyDepth(), keyUsageCA(), altNames(false, tlv(0x82, []byte{'a' + byte(i)}))}}.der(t))
	}
	start := costtest.Spent()
	_, _, err := VerifyClient(shown, p.aa.Cert, testNow)
	took := costtest.Spent() - start
	if !errors.Is(err, ruleIssuer) {
		t.Errorf("got %v, want %v", err, ruleIssuer)
	}
	// Verification with these keys takes more than half a second.
	if took > 200*time.Millisecond {
		t.Errorf("the chain was refused after %v, want at most 200ms", took)
	}
	t.Logf("refused after %v", took)
}
