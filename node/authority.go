package node

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"strings"
	"time"

	"peerlink/internal/durable"
	"peerlink/node/pki"
)

// This file keeps the records of what the root key has signed, in the form of
// OpenSSL's "ca" database: db/serial, db/index and certs/.

// sign takes the next serial number, makes a certificate with it, and records
// it. The number is written back first: a crash may waste it, never use it twice.
// The caller holds the directory's lock.
func (d *Dir) sign(key crypto.Signer, make func(a *pki.Authority, serial *big.Int) (*x509.Certificate, error)) (*x509.Certificate, error) {
	if err := d.CheckKey(key); err != nil {
		return nil, err
	}
	serial, err := d.nextSerial()
	if err != nil {
		return nil, err
	}
	cert, err := make(&pki.Authority{Cert: d.root, Key: key}, serial)
	if err != nil {
		return nil, err
	}
	return cert, d.record(cert)
}

// maxIndex bounds db/index, which has about 150 bytes for each certificate.
const maxIndex = 64 << 20

// nextSerial reads db/serial and counts it up by one. A number that somebody
// has used meanwhile without counting, such as OpenSSL in another terminal, is
// passed over.
func (d *Dir) nextSerial() (*big.Int, error) {
	path := d.file("db", "serial")
	s, err := readLine(path)
	if err != nil {
		return nil, err
	}
	serial, ok := new(big.Int).SetString(strings.TrimSpace(s), 16)
	if !ok || serial.Sign() <= 0 || serial.BitLen() > 159 {
		return nil, fmt.Errorf("%s holds %.60q: expected the next serial number, up to 20 bytes in hex", path, s)
	}
	for {
		used, err := exists(d.file("certs", serialHex(serial)+".pem"))
		if err != nil {
			return nil, err
		}
		if !used {
			break
		}
		serial.Add(serial, big.NewInt(1))
	}
	next := new(big.Int).Add(serial, big.NewInt(1))
	return serial, durable.Replace(path, []byte(serialHex(next)+"\n"), 0o644)
}

// randomSerial makes the first serial number: 16 random bytes.
func randomSerial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] |= 1 // no leading zero byte, so that its length tells nothing
	return new(big.Int).SetBytes(b)
}

// record files a new certificate: a copy in certs/, a line in db/index. Doing it
// again changes nothing.
func (d *Dir) record(cert *x509.Certificate) error {
	serial := serialHex(cert.SerialNumber)
	if err := durable.Replace(d.file("certs", serial+".pem"), pki.EncodeCertificatePEM(cert), 0o644); err != nil {
		return err
	}
	path := d.file("db", "index")
	index, err := durable.Read(path, maxIndex)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(index) > 0 && !bytes.HasSuffix(index, []byte("\n")) {
		index = append(index, '\n')
	}
	line, err := IndexLine(cert)
	if err != nil {
		return err
	}
	if bytes.Contains(index, []byte(line)) {
		return nil
	}
	return durable.Replace(path, append(index, line...), 0o644)
}

// IndexLine is the line, with its line end, that db/index has for a certificate
// which this node has signed. The certificate's subject must be a node's name.
func IndexLine(cert *x509.Certificate) (string, error) {
	subject, err := pki.IdentityOf(cert.RawSubject)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("V\t%s\t\t%s\tunknown\t/O=%s/OU=%s/serialNumber=%s\n",
		indexTime(cert.NotAfter), serialHex(cert.SerialNumber), pki.Organization, subject.Type.OU(), subject.ID), nil
}

// indexTime writes a time as db/index has it: two digits of the year up to
// 2049, four after, as in the certificate itself.
func indexTime(t time.Time) string {
	t = t.UTC()
	if t.Year() < 2050 {
		return t.Format("060102150405Z")
	}
	return t.Format("20060102150405Z")
}

// serialHex writes a serial number as OpenSSL does: upper case, whole bytes.
func serialHex(n *big.Int) string {
	s := strings.ToUpper(n.Text(16))
	if len(s)%2 == 1 {
		s = "0" + s
	}
	return s
}
