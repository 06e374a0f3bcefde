package sshagent

import (
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ssh"
)

// encodeECDSA converts an ECDSA signature from the encoding of SSH (RFC 5656, section 3.1.2) to
// that of X.509 (RFC 5480, appendix A).
func encodeECDSA(blob []byte) ([]byte, error) {
	var sig struct{ R, S *big.Int }
	if err := ssh.Unmarshal(blob, &sig); err != nil {
		return nil, fmt.Errorf("the agent's signature is malformed: %w", err)
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(sig.R)
		b.AddASN1BigInt(sig.S)
	})
	return b.Bytes()
}
