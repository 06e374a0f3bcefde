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
	"os"
	"strings"
	"time"

	"peerlink/internal/durable"
	"peerlink/node/pki"
)

// This file keeps the records of what the root key has signed, in the form of
// OpenSSL's "ca" database: db/serial, db/index and certs/.

// The reference scripts run "openssl ca" on the same files, at any moment and
// without a lock: it reads db/serial and db/index, asks whether to sign, and
// however long that takes writes back the number plus one, and the lines that it
// read plus its own. What keeps the records right beside it:
//
//   - Serial numbers for peerlink's certificates are random, and never the
//     number that OpenSSL is about to use. db/serial is counted up by OpenSSL only.
//   - certs/ is never rewritten as a whole, so it knows everything that was
//     signed, and lines lost in db/index come back from there.

// sign makes a certificate with a new serial number, and records it. The caller
// holds the directory's lock.
func (d *Dir) sign(key crypto.Signer, make func(a *pki.Authority, serial *big.Int) (*x509.Certificate, error)) (*x509.Certificate, error) {
	if err := d.CheckKey(key); err != nil {
		return nil, err
	}
	cert, err := make(&pki.Authority{Cert: d.root, Key: key}, randomSerial())
	if err != nil {
		return nil, err
	}
	return cert, d.record(cert)
}

// firstSerial reads db/serial for the node's root certificate, as the reference
// does it, and counts it up by one. A number that an interrupted attempt has
// used is passed over.
func (d *Dir) firstSerial() (*big.Int, error) {
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

// randomSerial makes a serial number: 16 random bytes.
func randomSerial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] |= 1 // no leading zero byte, so that its length reveals nothing
	return new(big.Int).SetBytes(b)
}

// record files a new certificate: a copy in certs/, a line in db/index. Doing it
// again changes nothing.
func (d *Dir) record(cert *x509.Certificate) error {
	if err := durable.Replace(d.file("certs", serialHex(cert.SerialNumber)+".pem"), pki.EncodeCertificatePEM(cert), 0o644); err != nil {
		return err
	}
	// Looked at again after it was written, for OpenSSL may have written as well.
	for range 3 {
		if added, err := d.completeIndex(); err != nil || !added {
			return err
		}
	}
	return nil
}

// maxIndex bounds db/index, which has about 150 bytes for each certificate.
const maxIndex = 64 << 20

// readIndex reads db/index. There is none for a moment while OpenSSL replaces it,
// which is waited for: lines for what is not in certs/ could not be made again.
func (d *Dir) readIndex() ([]byte, error) {
	for range 20 {
		index, err := durable.Read(d.file("db", "index"), maxIndex)
		if !errors.Is(err, fs.ErrNotExist) {
			return index, err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, nil
}

// completeIndex adds to db/index the lines that it lacks, and reports whether there
// were any. It reads db/index once: what it does not have then may be there a moment
// later, and a line that stands there twice is one too many for OpenSSL.
func (d *Dir) completeIndex() (added bool, err error) {
	index, err := d.readIndex()
	if err != nil {
		return false, err
	}
	lines, err := d.unlisted(index)
	if err != nil || len(lines) == 0 {
		return false, err
	}
	if len(index) > 0 && !bytes.HasSuffix(index, []byte("\n")) {
		index = append(index, '\n')
	}
	for _, line := range lines {
		index = append(index, line...)
	}
	return true, durable.Replace(d.file("db", "index"), index, 0o644)
}

// unlisted makes the lines that a db/index lacks for what certs/ has. Files there
// that hold something else than a certificate of this node are passed over.
func (d *Dir) unlisted(index []byte) (lines []string, err error) {
	listed := make(map[string]bool)
	for line := range strings.Lines(string(index)) {
		if fields := strings.Split(line, "\t"); len(fields) > 3 {
			listed[fields[3]] = true
		}
	}
	copies, err := os.ReadDir(d.file("certs"))
	if err != nil {
		return nil, err
	}
	for _, c := range copies {
		serial, ok := strings.CutSuffix(c.Name(), ".pem")
		if !ok || listed[serial] || strings.HasPrefix(serial, ".") {
			continue
		}
		cert, err := readCert(d.file("certs"), c.Name())
		if err != nil || serialHex(cert.SerialNumber) != serial || !d.signed(cert) {
			continue
		}
		if line, err := IndexLine(cert); err == nil {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// signed reports whether the node's root key has signed a certificate.
func (d *Dir) signed(cert *x509.Certificate) bool {
	return d.root.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
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
