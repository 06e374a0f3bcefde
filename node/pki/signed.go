package pki

import (
	"bytes"
	"errors"
	"fmt"
)

// A root key signs certificates, certificate signing requests, and nodeinfo.zip, each
// with the same algorithms over plain bytes: nothing in the signature says which of
// them it is for. So the bytes must tell them apart, for every reader of them.
//
// Certificates and requests are DER and begin with the tag of a SEQUENCE; which of the
// two it is follows from the types of its first two elements. A zip file is recognized
// by most readers, "unzip" for one, by the end of central directory record near its
// end, whatever it begins with. Who has his key certified decides on some bytes of the
// certificate, and could hide such a record there. Therefore nothing is signed as DER
// that contains the signature of that record, and no data that begins like DER.

// ErrAmbiguous is returned where a signature could be presented as one over something
// else that the same key signs.
var ErrAmbiguous = errors.New("it could be taken for something else that is signed with the same key")

const (
	zipEnd      = "PK\x05\x06" // the end of central directory record of a zip file
	derSequence = 0x30
)

// checkDER checks DER that is to be signed, or a part of it.
func checkDER(der []byte) error {
	if bytes.Contains(der, []byte(zipEnd)) {
		return fmt.Errorf("%w: it contains the end of a zip file", ErrAmbiguous)
	}
	return nil
}

// checkData checks data that is to be signed and is not DER.
func checkData(data []byte) error {
	if len(data) > 0 && data[0] == derSequence {
		return fmt.Errorf("%w: it begins like a certificate", ErrAmbiguous)
	}
	return nil
}
