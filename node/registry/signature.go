package registry

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
)

// signaturePrefix is the beginning of the last line of a signed list. The line is a TOML comment,
// so that a signed list is still valid TOML. The rest of the line is the signature in base64.
const signaturePrefix = "# ed25519 signature: "

// split returns the signed part of a list, which is everything above the signature, and the
// signature, or nil if the list is not signed. If there is text below the signature, split fails,
// even if the signature is not going to be verified: readers could assume that the text is signed.
func split(data []byte) (statements, signature []byte, err error) {
	at := 0
	for line := range bytes.Lines(data) {
		if signature != nil {
			return nil, nil, fmt.Errorf("%w: there is something below the signature, which must be the last line", errFormat)
		}
		encoded, found := bytes.CutPrefix(line, []byte(signaturePrefix))
		if !found {
			at += len(line)
			continue
		}
		encoded = bytes.TrimSuffix(bytes.TrimSuffix(encoded, []byte("\n")), []byte("\r"))
		signature, err = base64.StdEncoding.Strict().DecodeString(string(encoded))
		if err != nil || len(signature) != ed25519.SignatureSize {
			return nil, nil, fmt.Errorf("%w: the signature is cut off or damaged: expected %d bytes in base64", errFormat, ed25519.SignatureSize)
		}
	}
	return data[:at], signature, nil
}

func verify(statements, signature []byte, key ed25519.PublicKey) error {
	if len(key) != ed25519.PublicKeySize {
		return fmt.Errorf("%w: %d bytes: expected %d", errKey, len(key), ed25519.PublicKeySize)
	}
	if signature == nil {
		return fmt.Errorf("%w: expected a last line that begins with %q", errUnsigned, signaturePrefix)
	}
	if !ed25519.Verify(key, statements, signature) {
		return fmt.Errorf("%w: the list was signed with another key, or changed afterwards (line ends too)", errSignature)
	}
	return nil
}

// sign checks a list in the same way as [parse], except the end of its validity, and
// signs it with the publisher's key. It replaces an existing signature. The signature
// covers every byte, including line ends.
func sign(list []byte, key ed25519.PrivateKey) ([]byte, error) {
	if len(list) > maxList {
		return nil, tooLarge()
	}
	statements, _, err := split(list)
	if err != nil {
		return nil, err
	}
	if _, err := decode(statements); err != nil {
		return nil, err
	}
	signed := bytes.Clone(statements)
	if !bytes.HasSuffix(signed, []byte("\n")) {
		signed = append(signed, '\n')
	}
	signature := ed25519.Sign(key, signed)
	return fmt.Appendf(signed, "%s%s\n", signaturePrefix, base64.StdEncoding.EncodeToString(signature)), nil
}

// ParseKey parses a publisher's public key in the format of "openssl pkey -pubout": a PEM block,
// or just the base64 text in it.
func ParseKey(text string) (ed25519.PublicKey, error) {
	text = strings.TrimSpace(text)
	var der []byte
	if strings.HasPrefix(text, "-----BEGIN ") {
		block, rest := pem.Decode([]byte(text))
		if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
			return nil, fmt.Errorf("%w: expected exactly one PEM block, of type PUBLIC KEY", errKey)
		}
		der = block.Bytes
	} else {
		var err error
		if der, err = base64.StdEncoding.Strict().DecodeString(text); err != nil {
			return nil, fmt.Errorf("%w: expected what \"openssl pkey -pubout\" writes, or the base64 text in it", errKey)
		}
	}
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errKey, err)
	}
	key, ok := pub.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: the key is of type %T", errKey, pub)
	}
	return key, nil
}
