package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// ErrTimes is wrapped by the errors for certificates with a beginning or an end in a form that
// RFC 5280 forbids.
var ErrTimes = errors.New("the time has a wrong form")

// ParseCertificate parses a certificate in DER. Unlike crypto/x509, it refuses times in forms that
// RFC 5280 forbids, with [ErrTimes]: programs read them differently, and a time with an offset
// may be in the year 10000 in UTC, which JSON can not represent.
func ParseCertificate(der []byte) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if err := checkTimes(cert); err != nil {
		return nil, err
	}
	return cert, nil
}

// checkTimes returns [ErrTimes] unless the beginning and the end of a certificate have the forms
// of RFC 5280, section 4.1.2.5.
func checkTimes(cert *x509.Certificate) error {
	validity, ok := validityOf(cert)
	for _, which := range []string{"beginning", "end"} {
		var text cryptobyte.String
		var tag cbasn1.Tag
		if ok = ok && validity.ReadAnyASN1(&text, &tag); !ok {
			return errors.New("the validity of the certificate can not be read")
		}
		if !isTime(tag, string(text)) {
			return fmt.Errorf("%w: the %s of the certificate is %.50q, expected YYMMDDHHMMSSZ as UTCTime or YYYYMMDDHHMMSSZ as GeneralizedTime (RFC 5280, section 4.1.2.5)",
				ErrTimes, which, text)
		}
	}
	return nil
}

// validityOf returns the content of the sequence with the beginning and the end of a certificate.
func validityOf(cert *x509.Certificate) (validity cryptobyte.String, ok bool) {
	s := cryptobyte.String(cert.RawTBSCertificate)
	var fields cryptobyte.String
	ok = s.ReadASN1(&fields, cbasn1.SEQUENCE) &&
		fields.SkipOptionalASN1(cbasn1.Tag(0).ContextSpecific().Constructed()) && // version
		fields.SkipASN1(cbasn1.INTEGER) && // serial number
		fields.SkipASN1(cbasn1.SEQUENCE) && // algorithm of the signature
		fields.SkipASN1(cbasn1.SEQUENCE) && // issuer
		fields.ReadASN1(&validity, cbasn1.SEQUENCE)
	return validity, ok
}

// isTime reports whether a time that crypto/x509 has accepted has the form that RFC 5280 requires
// for its type.
func isTime(tag cbasn1.Tag, text string) bool {
	digits, utc := strings.CutSuffix(text, "Z")
	return utc && strings.Trim(digits, "0123456789") == "" &&
		(tag == cbasn1.UTCTime && len(digits) == len("YYMMDDHHMMSS") ||
			tag == cbasn1.GeneralizedTime && len(digits) == len("YYYYMMDDHHMMSS"))
}
