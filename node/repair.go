package node

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"peerlink/internal/durable"
	"peerlink/internal/excerpt"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// DefectKind is a kind of [Defect].
type DefectKind int

// The kinds of defects.
const (
	// DefectMissing is a missing file or folder, or a blank file, that can be
	// generated again. For example, Git does not keep empty folders.
	DefectMissing DefectKind = iota + 1
	// DefectLeftover is an incomplete file or folder of an interrupted command.
	DefectLeftover
	// DefectUnusedSubnet is a debtors subnet that is reserved, but that no peer has
	// ("Broken reservations" in the specification of the node's directory).
	DefectUnusedSubnet
	// DefectUnreservedSubnet is a subnet that a peer has, or that is in a peer certificate,
	// but that is not reserved.
	DefectUnreservedSubnet
	// DefectSubnetFile is a missing or damaged file with the subnet that the node and a peer
	// have agreed on, or such a file that contradicts the certificate.
	DefectSubnetFile
	// DefectUnlisted is a db/index without lines for some certificates in certs/.
	// OpenSSL can lose lines that are added while it signs.
	DefectUnlisted
	// DefectPeerCertificate is a missing or damaged peercert.crt in a peer's directory, of
	// which certs/ has a copy.
	DefectPeerCertificate
)

// Defect is a defect of a node's directory that [Dir.Repair] can repair from the
// directory's own content.
type Defect struct {
	Kind   DefectKind
	File   string // relative to the directory, with slashes
	Wrong  string // what is wrong with the file, such as "is missing"
	Remedy string // what Repair does about it, in the past tense, such as "made anew"
	fix    func() error
}

// Repair repairs the same defects of a directory as the reference's init: it creates
// missing generated files and folders, and releases debtors subnets that no peer has.
// It also restores lost peer certificates from certs/, reserves the subnets that peers have,
// makes files with subnets agree with the certificates, adds missing lines to db/index, and
// removes what interrupted commands have left. It returns one line for each repaired defect,
// even if it fails after some repairs. If there are no defects, Repair changes nothing.
//
// Repair may be interrupted at any moment, and started again.
func (d *Dir) Repair(ctx context.Context) (done []string, err error) {
	if defects, err := d.Defects(ctx); err == nil && len(defects) == 0 && !durable.HasLockFile(d.file("db")) {
		return nil, nil // the lock would need write access
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var errs []error
	for _, find := range d.finders() {
		// The defects are searched for now, because the earlier repairs may affect them.
		defects, err := find(ctx)
		errs = append(errs, err)
		for _, defect := range defects {
			if ctx.Err() != nil {
				return done, ctx.Err()
			}
			if err := defect.fix(); err != nil {
				return done, errors.Join(append([]error{fmt.Errorf("repair %s: %w", defect.File, err)}, errs...)...)
			}
			done = append(done, fmt.Sprintf("%s %s: %s", defect.File, defect.Wrong, defect.Remedy))
		}
	}
	return done, errors.Join(errs...)
}

// Defects returns the defects that [Dir.Repair] would repair, in the same order. It
// changes nothing. If it fails, it also returns the defects that it has found.
func (d *Dir) Defects(ctx context.Context) (found []Defect, err error) {
	var errs []error
	for _, find := range d.finders() {
		defects, err := find(ctx)
		found = append(found, defects...)
		errs = append(errs, err)
	}
	return found, errors.Join(errs...)
}

// finders returns the functions that find defects, in the order of repair.
func (d *Dir) finders() []func(context.Context) ([]Defect, error) {
	return []func(context.Context) ([]Defect, error){
		d.missingFolders, d.missingFiles, d.missingIndex, d.unlistedCertificates, d.leftovers, d.missingPeerCertificates, d.wrongSubnetFiles, d.subnetDefects,
	}
}

func (d *Dir) missingFolders(context.Context) (found []Defect, err error) {
	for _, name := range []string{"certs", "peers"} {
		path := d.file(name)
		if there, err := exists(path); err != nil {
			return found, err
		} else if !there {
			found = append(found, Defect{DefectMissing, name, "is missing", "made",
				func() error { return os.MkdirAll(path, 0o755) }})
		}
	}
	return found, nil
}

// missingFiles finds generated files that are missing or blank. A lost db/serial is
// replaced with a new random number, not with the highest recorded number plus one:
// there may be certificates of which all records are lost.
func (d *Dir) missingFiles(context.Context) (found []Defect, err error) {
	for _, f := range d.generatedFiles() {
		path := d.file(filepath.FromSlash(f.Name))
		switch data, err := readFile(path); {
		case errors.Is(err, fs.ErrNotExist):
			found = append(found, Defect{DefectMissing, f.Name, "is missing", "made anew", func() error {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					return err
				}
				// Not durable.Replace: a script, which holds no lock, may have created the file.
				if err := durable.Create(path, f.Data, 0o644); !errors.Is(err, fs.ErrExist) {
					return err
				}
				return nil
			}})
		case err != nil:
			return found, err
		case isBlank(data):
			found = append(found, Defect{DefectMissing, f.Name, "is blank", "made anew", func() error {
				return durable.Replace(path, f.Data, 0o644)
			}})
		}
	}
	return found, nil
}

// missingIndex reports a missing db/index, which can be restored from the certificates
// in the directory.
func (d *Dir) missingIndex(context.Context) ([]Defect, error) {
	path := d.file("db", "index")
	if there, err := exists(path); err != nil || there {
		return nil, err
	}
	return []Defect{{DefectMissing, "db/index", "is missing", "made anew from the certificates that are still there", func() error {
		certs, err := d.knownCertificates()
		if err != nil {
			return err
		}
		var index []byte
		for _, cert := range certs {
			if line, err := IndexLine(cert); err == nil {
				index = append(index, line...)
			}
		}
		if err := durable.Create(path, index, 0o644); !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	}}}, nil
}

// unlistedCertificates reports certificates in certs/ without a line in db/index.
func (d *Dir) unlistedCertificates(context.Context) ([]Defect, error) {
	if there, err := exists(d.file("db", "index")); err != nil || !there {
		return nil, err // reported by missingIndex
	}
	index, err := d.database().index()
	if err != nil {
		return nil, err
	}
	lines, err := d.database().missingLines(index)
	if err != nil || len(lines) == 0 {
		return nil, ignoreMissing(err) // a missing certs/ is reported by missingFolders
	}
	wrong := fmt.Sprintf("lacks %d of the certificates in certs/", len(lines))
	return []Defect{{DefectUnlisted, "db/index", wrong, "added", func() error {
		_, err := d.database().completeIndex()
		return err
	}}}, nil
}

// ignoreMissing returns nil if err is [fs.ErrNotExist], and err otherwise.
func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// knownCertificates returns the certificates signed with the node's root key of which
// the directory has a copy, sorted by serial number. Other files are skipped.
func (d *Dir) knownCertificates() ([]*x509.Certificate, error) {
	files, err := d.database().certFiles()
	if err != nil {
		return nil, err
	}
	ids, err := d.PeerIDs()
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		files = append(files, d.file("peers", id, "peercert.crt"))
	}
	certs := []*x509.Certificate{d.root}
	for _, path := range files {
		found, _ := readCerts(path)
		certs = append(certs, slices.DeleteFunc(found, func(c *x509.Certificate) bool { return !d.database().hasSigned(c) })...)
	}
	bySerial := func(a, b *x509.Certificate) int { return a.SerialNumber.Cmp(b.SerialNumber) }
	slices.SortStableFunc(certs, bySerial)
	return slices.CompactFunc(certs, func(a, b *x509.Certificate) bool { return bySerial(a, b) == 0 }), nil
}

// leftoverName matches the temporary files of package durable.
var leftoverName = regexp.MustCompile(`^\..+\.tmp-[0-9]+$`)

// leftovers finds temporary files and incomplete directories of peers. It does not
// search private/, because a file that may be a key must not be removed.
//
// While the lock is held, only commands that create a single file without the lock
// may be writing. They can handle the removal of their temporary file.
func (d *Dir) leftovers(ctx context.Context) (found []Defect, err error) {
	leftover := func(path string, remove func(string) error) error {
		name, err := filepath.Rel(d.path, path)
		if err != nil {
			return err
		}
		found = append(found, Defect{DefectLeftover, filepath.ToSlash(name), "was left by an interrupted command", "removed",
			func() error { return remove(path) }})
		return nil
	}
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if leftoverName.MatchString(e.Name()) && e.Type().IsRegular() {
			if err := leftover(d.file(e.Name()), os.Remove); err != nil {
				return found, err
			}
		}
	}
	for _, top := range []string{"db", "certs", "nodeinfo", "peers"} {
		err := filepath.WalkDir(d.file(top), func(path string, e fs.DirEntry, err error) error {
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case errors.Is(err, fs.ErrNotExist): // top itself, or a file that a command has just removed
				return nil
			case err != nil:
				return err
			case e.IsDir() && top == "peers" && filepath.Dir(path) == d.file(top) && strings.HasPrefix(e.Name(), newPeerPrefix):
				if err := leftover(path, os.RemoveAll); err != nil {
					return err
				}
				return fs.SkipDir
			case e.Type().IsRegular() && leftoverName.MatchString(e.Name()):
				return leftover(path, os.Remove)
			}
			return nil
		})
		if err != nil {
			return found, err
		}
	}
	return found, nil
}

// missingPeerCertificates finds peer certificates that this node has issued, and that are missing
// or damaged in the peer's directory, although certs/ has a copy.
func (d *Dir) missingPeerCertificates(ctx context.Context) (found []Defect, err error) {
	for id, err := range d.eachPeer(ctx) {
		if err != nil {
			return found, err
		}
		_, reason := readCert(d.file("peers", id), "peercert.crt")
		if !isMissingOrDamaged(reason) {
			continue
		}
		root, err := readCert(d.file("peers", id), "root-ca.crt")
		if err != nil {
			continue // no peer any more (see HasPeer), or reported when the certificate is needed
		}
		cert, from, err := d.issuedCopy(id, root)
		if err != nil {
			return found, err
		}
		if cert == nil {
			continue
		}
		name, wrong := "peers/"+id+"/peercert.crt", "is damaged"
		if errors.Is(reason, fs.ErrNotExist) {
			wrong = "is missing"
		}
		found = append(found, Defect{DefectPeerCertificate, name, wrong, "restored from " + from, func() error {
			_, err := d.restoreFile(name, pki.EncodeCertificatePEM(cert), reason, from)
			return err
		}})
	}
	return found, nil
}

// issuedCopy returns the copy in certs/ of the certificate that was issued to a peer with the
// given root certificate, and the name of the file. If there are several such certificates, it
// returns the newest of those that are valid now, or else the newest of all. It returns nil if
// there is none, or if there are several with different subnets and subnet.txt does not decide
// between them.
func (d *Dir) issuedCopy(id string, root *x509.Certificate) (newest *x509.Certificate, file string, err error) {
	paths, err := d.database().certFiles()
	if err != nil {
		return nil, "", err
	}
	known, err := readLine(d.file("peers", id, "subnet.txt"))
	if isMissingOrDamaged(err) {
		known, err = "", nil
	}
	if err != nil {
		return nil, "", err
	}
	now, subnets := time.Now(), make(map[string]bool)
	for _, path := range paths {
		certs, _ := readCerts(path)
		for _, cert := range certs {
			if !bytes.Equal(cert.RawSubject, root.RawSubject) || !bytes.Equal(cert.RawSubjectPublicKeyInfo, root.RawSubjectPublicKeyInfo) || !d.database().hasSigned(cert) {
				continue
			}
			subnet, _, err := pki.SubnetComment(cert)
			if err != nil || isSubnet(known) && subnet != known {
				continue
			}
			subnets[subnet] = true
			// A certificate that was signed with a clock that was ahead may have been replaced.
			valid := isValidAt(cert, now)
			if newest == nil || valid && !isValidAt(newest, now) || valid == isValidAt(newest, now) && cert.NotBefore.After(newest.NotBefore) {
				newest, file = cert, "certs/"+filepath.Base(path)
			}
		}
	}
	if len(subnets) > 1 {
		return nil, "", nil
	}
	return newest, file, nil
}

// subnetDefects finds subnets of peers that are not reserved, and debtors subnets, of which
// there are only 256, that are reserved although nobody has them.
//
// The reference's init releases a debtors subnet unless the directory of the peer named in the
// reservation has it. subnetDefects keeps more reservations: a subnet in any peer's files, in any
// certificate, in the record of what was signed on this machine, or in a request that waits for a
// signature stays reserved.
func (d *Dir) subnetDefects(ctx context.Context) (found []Defect, err error) {
	if d.identity.Type != nodetype.AccountingAuthority {
		return nil, nil
	}
	held, err := d.heldGrants(ctx)
	if err != nil {
		return nil, fmt.Errorf("the reservations in db/subnets were not compared with the peers: %w", err)
	}
	recorded, err := d.recordedGrants()
	if err != nil {
		return nil, fmt.Errorf("the reservations in db/subnets were not compared with the record of what was signed on this machine: %w", err)
	}
	requested, err := d.requestedGrants()
	if err != nil {
		return nil, fmt.Errorf("the reservations in db/subnets were not compared with the requests: %w", err)
	}
	held = append(held, recorded...)
	for _, p := range d.pools() {
		reserved, err := p.reservations()
		if err != nil {
			return found, err
		}
		found = append(found, p.unreserved(held, newGrants(reserved))...)
		if p.dir == d.pool(nodetype.DebtorsAgent).dir {
			unused, err := d.unusedReservations(p, reserved, newGrants(held, requested))
			if err != nil {
				return found, err
			}
			found = append(found, unused...)
		}
	}
	return found, nil
}

// unreserved returns the pool's subnets that are in certificates, or that peers have, and that
// are not reserved.
func (p pool) unreserved(held []grant, reserved grants) (found []Defect) {
	for _, g := range held {
		if !p.contains(g.subnet) || reserved[g.subnet] != nil || g.contradictsCert {
			continue
		}
		reserved[g.subnet] = []grant{g}
		found = append(found, Defect{DefectUnreservedSubnet, p.name(g.subnet), fmt.Sprintf("is missing, though %s gives this subnet to %s", g.file, g.peerID), "made anew", func() error {
			return p.ensureReserved(g.peerID, g.subnet)
		}})
	}
	return found
}

// unusedReservations returns the pool's reservations of subnets that have not been given to
// anybody. A reservation for a node that may have a certificate of which there is no copy is
// the last record of its subnet.
func (d *Dir) unusedReservations(p pool, reserved []grant, given grants) (found []Defect, err error) {
	free := slices.DeleteFunc(slices.Clone(reserved), func(g grant) bool { return !p.contains(g.subnet) || given[g.subnet] != nil })
	if len(free) == 0 {
		return nil, nil
	}
	uncertain, err := d.nodesWithoutCopy()
	if err != nil {
		return nil, err
	}
	for _, g := range free {
		if uncertain[g.peerID] || g.peerID == "" && len(uncertain) > 0 {
			continue
		}
		found = append(found, Defect{DefectUnusedSubnet, g.file, "is reserved, but no peer has this subnet",
			"released, and the counter set back", func() error {
				// The counter is reset first. Otherwise, after a crash in between, the released
				// number would be given again only after all others.
				if err := p.resetCounter(); err != nil {
					return err
				}
				return p.release(g.subnet)
			}})
	}
	return found, nil
}

// wrongSubnetFiles finds missing, damaged and changed files with the subnet that the node and a
// peer have agreed on. The subnet in the certificate, which both nodes have, decides.
func (d *Dir) wrongSubnetFiles(ctx context.Context) (found []Defect, err error) {
	for id, err := range d.eachPeer(ctx) {
		if err != nil {
			return found, err
		}
		name, certName := d.subnetFile(id)
		cert, err := readCert(d.file("peers", id), certName)
		if err != nil {
			continue // not registered yet, or reported when the certificate is needed
		}
		want, ok, err := pki.SubnetComment(cert)
		if err != nil || !ok {
			continue
		}
		path := d.file(filepath.FromSlash(name))
		got, err := readLine(path)
		if err == nil && got == want || err != nil && !isMissingOrDamaged(err) {
			continue
		}
		wrong := fmt.Sprintf("holds %q, not the subnet in %s", excerpt.Of(got), certName)
		if err != nil {
			wrong = fmt.Sprintf("is missing or damaged, and the subnet is in %s", certName)
		}
		found = append(found, Defect{DefectSubnetFile, name, wrong, "made anew", func() error {
			return durable.Replace(path, []byte(want+"\n"), 0o644)
		}})
	}
	return found, nil
}

// subnetFile returns the name of the file with the subnet that the node and a peer have agreed
// on, relative to the directory and with slashes, and the name of the certificate, in the
// peer's directory, that has the subnet, too.
func (d *Dir) subnetFile(id string) (name, cert string) {
	switch d.identity.Type {
	case nodetype.AccountingAuthority:
		return "peers/" + id + "/subnet.txt", "peercert.crt"
	case nodetype.CreditorsAgent:
		return "peers/" + id + "/masq-subnet.txt", "sub-ca.crt"
	default:
		return "debtors-subnet.txt", "sub-ca.crt"
	}
}

// contains reports whether subnet has the form of the pool's subnets.
func (p pool) contains(subnet string) bool {
	digits, ok := strings.CutPrefix(subnet, p.prefix)
	return ok && len(digits) == p.digits && strings.Trim(digits, "0123456789abcdef") == ""
}

// resetCounter resets the pool's counter, so that the search for a free subnet starts at the
// pool's first subnet. That is safe at any time, because reservations are created exclusively.
func (p pool) resetCounter() error {
	start := strconv.Itoa(p.start)
	if last, err := readLine(p.seqnumFile()); err == nil && last == start {
		return nil
	}
	return durable.Replace(p.seqnumFile(), []byte(start+"\n"), 0o644)
}
