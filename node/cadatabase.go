package node

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"peerlink/internal/durable"
	"peerlink/internal/excerpt"
	"peerlink/node/pki"
)

// caDatabase is the record of the certificates that a root key has signed, in the form of
// OpenSSL's "ca" database: db/serial, db/index and certs/.
//
// The reference scripts run "openssl ca" on the same files, at any moment and
// without a lock. "openssl ca" reads db/serial and db/index, prompts whether to
// sign, and, after any length of time, writes back the serial number plus one, and
// the lines that it has read plus a new line. The records stay correct because:
//
//   - Serial numbers of peerlink's certificates are random, and never the number
//     that OpenSSL is about to use. Apart from [Init], only OpenSSL increments
//     db/serial.
//   - certs/ is never rewritten as a whole, so it has a copy of every certificate
//     that was signed. Lines lost from db/index are restored from these copies.
type caDatabase struct {
	dir  string            // the node's directory
	root *x509.Certificate // nil if there is none yet
}

func (d *Dir) database() caDatabase { return caDatabase{d.path, d.root} }

func (db caDatabase) file(elem ...string) string {
	return filepath.Join(append([]string{db.dir}, elem...)...)
}

// takeRootSerial takes the serial number for the node's new root certificate from db/serial,
// and increments the number in the file, as the reference does. Numbers that an
// interrupted attempt has used are skipped.
func (db caDatabase) takeRootSerial() (*big.Int, error) {
	path := db.file("db", "serial")
	s, err := readLine(path)
	if err != nil {
		return nil, err
	}
	serial, ok := new(big.Int).SetString(strings.TrimSpace(s), 16)
	if !ok || serial.Sign() <= 0 || serial.BitLen() > 159 {
		return nil, fmt.Errorf("%s holds %.60q: expected the next serial number, up to 20 bytes in hex", path, s)
	}
	for {
		used, err := exists(db.file("certs", pki.SerialHex(serial)+".pem"))
		if err != nil {
			return nil, err
		}
		if !used {
			break
		}
		serial.Add(serial, big.NewInt(1))
	}
	next := new(big.Int).Add(serial, big.NewInt(1))
	return serial, durable.Replace(path, []byte(pki.SerialHex(next)+"\n"), 0o644)
}

// randomSerial returns a serial number of 16 random bytes.
func randomSerial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] |= 1 // not zero, so that all of the numbers have 32 hex digits
	return new(big.Int).SetBytes(b)
}

// record records a new certificate: it writes a copy to certs/, and adds a line to
// db/index. Recording a certificate again changes nothing; one that was signed again takes the place of the
// earlier one.
func (db caDatabase) record(cert *x509.Certificate) error {
	if err := os.MkdirAll(db.file("certs"), 0o755); err != nil {
		return err
	}
	if err := durable.Replace(db.file("certs", pki.SerialHex(cert.SerialNumber)+".pem"), pki.EncodeCertificatePEM(cert), 0o644); err != nil {
		return err
	}
	// Check db/index again after it was written: OpenSSL may have replaced it meanwhile.
	for range 3 {
		if added, err := db.completeIndex(); err != nil || !added {
			return cmp.Or(err, db.correctExpiry(cert))
		}
	}
	return db.correctExpiry(cert)
}

// correctExpiry replaces the line of db/index for the serial number of a certificate, if it has another expiry.
func (db caDatabase) correctExpiry(cert *x509.Certificate) error {
	index, err := db.index()
	if err != nil {
		return err
	}
	want, err := IndexLine(cert)
	if err != nil {
		return err
	}
	serial, changed := pki.SerialHex(cert.SerialNumber), false
	var lines []string
	for line := range strings.Lines(string(index)) {
		fields := strings.Split(line, "\t")
		if len(fields) == 6 && fields[0] == "V" && fields[3] == serial && fields[1] != indexTime(cert.NotAfter) {
			line, changed = want, true
		}
		lines = append(lines, line)
	}
	if !changed {
		return nil
	}
	return durable.Replace(db.file("db", "index"), []byte(strings.Join(lines, "")), 0o644)
}

// maxIndex is the maximum size of db/index in bytes. A line has about 150 bytes.
const maxIndex = 64 << 20

// index reads db/index. If the file is missing or blank, the result is empty. But while
// OpenSSL replaces it, there is db/index.old and, for a moment, no db/index: in this
// state, index first waits for the file for up to two seconds, because the lines of
// certificates without a copy in certs/ could not be restored.
func (db caDatabase) index() ([]byte, error) {
	for range 200 {
		index, err := durable.Read(db.file("db", "index"), maxIndex)
		if isBlank(index) && err == nil {
			return nil, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return index, err
		}
		if _, err := os.Lstat(db.file("db", "index.old")); errors.Is(err, fs.ErrNotExist) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, nil
}

// completeIndex adds the missing lines to db/index, and reports whether there were
// any. It reads db/index only once: OpenSSL may add a line at any moment, and does
// not accept a db/index in which a line occurs twice.
func (db caDatabase) completeIndex() (added bool, err error) {
	index, err := db.index()
	if err != nil {
		return false, err
	}
	lines, err := db.missingLines(index)
	if err != nil || len(lines) == 0 {
		return false, err
	}
	if len(index) > 0 && !bytes.HasSuffix(index, []byte("\n")) {
		index = append(index, '\n')
	}
	for _, line := range lines {
		index = append(index, line...)
	}
	return true, durable.Replace(db.file("db", "index"), index, 0o644)
}

// missingLines returns the lines that are missing in index for the certificates in
// certs/. Files in certs/ that are not a certificate signed by this node are skipped.
func (db caDatabase) missingLines(index []byte) (lines []string, err error) {
	listed := make(map[string]bool)
	for line := range strings.Lines(string(index)) {
		if fields := strings.Split(line, "\t"); len(fields) > 3 {
			listed[fields[3]] = true
		}
	}
	copies, err := os.ReadDir(db.file("certs"))
	if err != nil {
		return nil, err
	}
	for _, c := range copies {
		serial, ok := strings.CutSuffix(c.Name(), ".pem")
		if !ok || listed[serial] || strings.HasPrefix(serial, ".") {
			continue
		}
		cert, err := readCert(db.file("certs"), c.Name())
		if err != nil || pki.SerialHex(cert.SerialNumber) != serial || !db.hasSigned(cert) {
			continue
		}
		if line, err := IndexLine(cert); err == nil {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// hasSigned reports whether the node's root key has signed a certificate.
func (db caDatabase) hasSigned(cert *x509.Certificate) bool {
	return db.root.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
}

// HasRecord reports whether a certificate is on record, with a copy in certs/.
func (d *Dir) HasRecord(cert *x509.Certificate) bool {
	known, err := readCert(d.file("certs"), pki.SerialHex(cert.SerialNumber)+".pem")
	return err == nil && sameCertificate(known, cert)
}

// IndexLine returns the line of db/index, including the line end, for a certificate
// signed by this node. The certificate's subject must be the name of a node.
func IndexLine(cert *x509.Certificate) (string, error) {
	subject, err := pki.IdentityOf(cert.RawSubject)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("V\t%s\t\t%s\tunknown\t/O=%s/OU=%s/serialNumber=%s\n",
		indexTime(cert.NotAfter), pki.SerialHex(cert.SerialNumber), pki.Organization, subject.Type.OU(), subject.ID), nil
}

// indexTime formats a time for db/index. As in the certificate itself, the year has
// two digits up to 2049, and four digits after.
func indexTime(t time.Time) string {
	t = t.UTC()
	if t.Year() < 2050 {
		return t.Format("060102150405Z")
	}
	return t.Format("20060102150405Z")
}

// subjectID returns the ID of the node in the subject of the certificate with a serial
// number (in hex), according to db/index, or "" if the serial number is not listed.
func (db caDatabase) subjectID(serial string) (id string, err error) {
	index, err := db.index()
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(index)) {
		if listed, id, ok := parseIndexLine(line); ok && listed == serial {
			return id, nil
		}
	}
	return "", nil
}

// parseIndexLine returns the serial number, and the ID of the node in the subject, of a line
// of db/index.
func parseIndexLine(line string) (serial, id string, ok bool) {
	fields := strings.Split(strings.TrimSpace(line), "\t")
	if len(fields) != 6 {
		return "", "", false
	}
	_, id, ok = strings.Cut(fields[5], "/serialNumber=")
	return fields[3], excerpt.Of(id), ok
}

// certFiles returns the paths of the files in certs/ that may hold a copy of a certificate.
func (db caDatabase) certFiles() ([]string, error) {
	return filesIn(db.file("certs"), func(name string) bool { return !strings.HasPrefix(name, ".") })
}
