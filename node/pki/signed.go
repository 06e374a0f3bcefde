package pki

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
)

// A root key signs certificates, certificate signing requests, and nodeinfo.zip, with the
// same algorithms over plain bytes: the signature does not show which of the three was
// signed. Therefore the signed bytes themselves must be unambiguous for every reader.
//
// Certificates and requests are DER and begin with the tag of a SEQUENCE; they differ in
// the types of their first two elements. Most readers, such as "unzip", recognize a zip
// file by the end of central directory record near the end, regardless of how the file
// begins. The owner of a certified key can choose some bytes of the certificate, and could
// hide such a record there. Therefore DER is not signed if it contains the signature of
// that record, and other data is not signed if it begins like DER.

// errAmbiguous is returned if a signature could be presented as a signature over something
// else that the same key signs.
var errAmbiguous = errors.New("the signed data could be taken for something else that is signed with the same key")

const (
	zipEnd      = "PK\x05\x06" // the end of central directory record of a zip file
	derSequence = 0x30
)

// checkNotZip checks that DER which is to be signed, or a part of it, can not be taken for
// a zip file.
func checkNotZip(der []byte) error {
	if bytes.Contains(der, []byte(zipEnd)) {
		return fmt.Errorf("%w: it contains the four bytes that mark the end of a zip file: try again, and with another key if that fails too", errAmbiguous)
	}
	return nil
}

// checkNotDER checks that other data which is to be signed can not be taken for DER.
func checkNotDER(data []byte) error {
	if len(data) > 0 && data[0] == derSequence {
		return fmt.Errorf("%w: its first byte is 0x30, as that of a certificate: expected a zip file", errAmbiguous)
	}
	return nil
}

// derSigner is a key that signs only what [checkNotZip] accepts. The data is checked before it is
// signed: if the key is held by another program, such as an ssh-agent, rejecting the signature
// afterwards would be too late, since that program has it too.
type derSigner struct{ crypto.Signer }

func (k derSigner) SignMessage(rand io.Reader, der []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := checkNotZip(der); err != nil {
		return nil, err
	}
	return crypto.SignMessage(k.Signer, rand, der, opts)
}
