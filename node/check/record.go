package check

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"peerlink/node"
	"peerlink/node/pki"
)

// maxLines is the maximum number of findings about unreadable lines of db/index.
const maxLines = 10

// checkCopies checks the files in certs/.
func (c *checker) checkCopies() {
	for _, name := range c.list("certs") {
		if c.ctx.Err() != nil {
			return
		}
		file := "certs/" + name
		if !strings.HasSuffix(name, ".pem") {
			continue
		}
		cert := c.certificate(file)
		if cert == nil || c.root == nil {
			continue
		}
		if want := pki.SerialHex(cert.SerialNumber) + ".pem"; name != want {
			c.problem(file, RuleCopy, "holds the certificate with another serial number: expected the name %s", want)
		}
		if err := c.root.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
			c.problem(file, RuleCopy, "holds a certificate that was not signed by this node: %v", err)
			continue
		}
		c.issued = append(c.issued, issued{file, cert})
		c.checkCopy(file, cert)
	}
}

// checkCopy checks one certificate in certs/, by its kind (root, server or peer
// certificate) and by whether the node uses it.
func (c *checker) checkCopy(file string, cert *x509.Certificate) {
	known := func(p *peer) bool { return p.issued != nil && cert.Equal(p.issued) }
	if cert.Equal(c.root) || slices.ContainsFunc(c.peers, known) {
		return // checked as a certificate in use
	}
	own := bytes.Equal(cert.RawSubject, c.root.RawSubject)
	switch {
	case own && cert.IsCA && sameKey(cert, c.root):
		c.warning(file, RuleCopyUnused, "is another root certificate than root-ca.crt: a node has exactly one; no harm is done if \"peerlink init\" was interrupted and nobody was given this certificate; if peers refuse this node's info-bundles, because they know the node with another root certificate, copy this file to root-ca.crt")
	case own || !cert.IsCA:
		c.serverCerts = append(c.serverCerts, issued{file, cert})
	default:
		id, err := pki.IdentityOf(cert.RawSubject)
		if err != nil {
			c.problem(file, RuleSubject, "the subject is %v", err)
			return
		}
		kept := "; the subnet in it, if there is one, is given to no other node as long as this file is here"
		if c.disputed[file] {
			kept = "; another node has the subnet in it too"
		}
		c.note(file, RuleCopyUnused, "is a peer certificate for %v, which is not in use: an interrupted signing, one that was replaced, or a peer that was removed%s", id, kept)
	}
}

// entry is a line of db/index.
type entry struct {
	expiry, serial, subject string
}

// parseEntry parses a line of db/index. Its status is V for valid certificates, E for
// expired ones (written by "openssl ca -updatedb"), or R for revoked ones. Revocation
// has no effect in Swaptacular.
func parseEntry(line string) (entry, error) {
	f := strings.Split(line, "\t")
	if len(f) != 6 {
		return entry{}, fmt.Errorf("%d fields: expected 6, separated by tabs", len(f))
	}
	e := entry{expiry: f[1], serial: f[3], subject: f[5]}
	switch {
	case f[0] != "V" && f[0] != "E" && f[0] != "R":
		return e, fmt.Errorf("status %q: expected V, E or R", firstLine(f[0]))
	case (f[0] == "R") != (f[2] != ""):
		return e, fmt.Errorf("revocation date %q: expected one with status R, and only then", firstLine(f[2]))
	case !isIndexTime(e.expiry):
		return e, fmt.Errorf("expiry %q: expected YYMMDDhhmmssZ, or YYYYMMDDhhmmssZ from 2050 on", firstLine(e.expiry))
	case len(e.serial)%2 != 0 || e.serial == "" || strings.Trim(e.serial, "0123456789ABCDEF") != "":
		return e, fmt.Errorf("serial number %q: expected an even number of upper case hex digits", firstLine(e.serial))
	}
	return e, nil
}

func isIndexTime(s string) bool {
	digits, ok := strings.CutSuffix(s, "Z")
	return ok && (len(digits) == 12 || len(digits) == 14) && strings.Trim(digits, "0123456789") == ""
}

// checkRecords checks db/index and db/serial against the certificates.
func (c *checker) checkRecords() {
	used := make(map[string]issued) // by serial number
	for _, i := range c.issued {
		serial := pki.SerialHex(i.cert.SerialNumber)
		if first, ok := used[serial]; !ok {
			used[serial] = i
		} else if !first.cert.Equal(i.cert) {
			c.problem(i.file, RuleSerialDuplicate, "has the serial number %s, as %s has, and is another certificate: no two may have the same", serial, first.file)
		}
	}
	listed := c.checkIndex(used)
	c.checkSerial(used, listed)
	c.checkIndexAttr()
}

// checkIndex checks db/index, and returns the serial numbers in it.
func (c *checker) checkIndex(used map[string]issued) (listed map[string]bool) {
	const file = "db/index"
	data, ok := c.readUpTo(file, maxIndex)
	if !ok {
		return nil
	}
	c.checkConflictMarks(file, data)
	if bytes.Contains(data, []byte("\r\n")) {
		c.warning(file, RuleLineEnds, "has lines that end with CR LF, as files of Windows do: openssl takes the CR for a part of the subject, and \"openssl ca -revoke\" does not find the certificate; make them LF, for example with \"dos2unix\"")
	}
	listed = make(map[string]bool)
	bad, copies := 0, 0
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			continue
		}
		e, err := parseEntry(line)
		if err != nil {
			if bad++; bad <= maxLines {
				c.problem(file, RuleIndexLine, "line %d: %v; remove the line; \"peerlink init\" then adds the missing lines for the certificates in certs/", number, err)
			}
			continue
		}
		if listed[e.serial] {
			c.problem(file, RuleSerialDuplicate, "line %d: the serial number %s a second time: no two certificates may have the same", number, e.serial)
		}
		listed[e.serial] = true
		if !c.exists("certs/" + e.serial + ".pem") {
			copies++
		}
		if i, ok := used[e.serial]; ok {
			c.checkEntry(number, e, i)
		}
	}
	if bad > maxLines {
		c.problem(file, RuleIndexLine, "%d more lines that can not be read", bad-maxLines)
	}
	if copies > 0 {
		c.note("certs", RuleCopyMissing, "%d of the %d certificates in db/index have no copy here: what was signed can not be looked up any more, and if a peer is lost, so is the record of its subnet", copies, len(listed))
	}
	for _, i := range c.issued {
		serial := pki.SerialHex(i.cert.SerialNumber)
		if i.file == "certs/"+serial+".pem" {
			continue // checkDefects reports the missing line, which Repair can add
		}
		if used[serial].file == i.file && !listed[serial] {
			c.warning(i.file, RuleIndexUnlisted, "has no line in db/index, which should list every certificate that this node has signed (serial number %s)", serial)
		}
	}
	return listed
}

// checkEntry compares a line with its certificate.
func (c *checker) checkEntry(number int, e entry, i issued) {
	line, err := node.IndexLine(i.cert)
	if err != nil {
		return // the certificate has a finding
	}
	want, err := parseEntry(strings.TrimSuffix(line, "\n"))
	if err != nil {
		return
	}
	if e.expiry != want.expiry {
		c.problem("db/index", RuleIndexEntry, "line %d: expiry %s, but %s ends at %s", number, e.expiry, i.file, want.expiry)
	}
	if e.subject != want.subject {
		c.problem("db/index", RuleIndexEntry, "line %d: subject %q, but that of %s is %q", number, firstLine(e.subject), i.file, want.subject)
	}
}

// minUnusedSerials is the number of serial numbers from db/serial onwards that must be unused,
// because OpenSSL uses serial numbers in ascending order.
const minUnusedSerials = 1 << 20

// checkSerial checks that db/serial was not set back to a smaller number.
func (c *checker) checkSerial(used map[string]issued, listed map[string]bool) {
	const file = "db/serial"
	s, ok := c.line(file)
	if !ok || s == "" {
		return // checkDefects reports it
	}
	next, ok := new(big.Int).SetString(strings.TrimSpace(s), 16)
	if !ok || next.Sign() <= 0 || next.BitLen() > 159 {
		c.problem(file, RuleSerialNext, "holds %q: expected the next serial number, up to 20 bytes in hex; remove the file, and \"peerlink init\" makes it anew", firstLine(s))
		return
	}
	numbers := make(map[string]bool)
	for serial := range used {
		numbers[serial] = true
	}
	for serial := range listed {
		numbers[serial] = true
	}
	limit := new(big.Int).Add(next, big.NewInt(minUnusedSerials))
	for serial := range numbers {
		n, ok := new(big.Int).SetString(serial, 16)
		if ok && n.Cmp(next) >= 0 && n.Cmp(limit) < 0 {
			c.problem(file, RuleSerialNext, "was set back: it holds %s, and %s was used before; remove the file, and \"peerlink init\" starts at a new random number", firstLine(s), serial)
			return
		}
	}
}

func (c *checker) checkIndexAttr() {
	const file = "db/index.attr"
	s, ok := c.line(file)
	if key, value, found := strings.Cut(s, "="); ok && s != "" &&
		(!found || strings.TrimSpace(key) != "unique_subject" || strings.TrimSpace(value) != "no") {
		c.warning(file, RuleIndexAttr, "holds %q: expected %q, or the reference scripts can not sign a second certificate in one name", firstLine(s), "unique_subject = no")
	}
}
