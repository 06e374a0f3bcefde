package node

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"peerlink/internal/durable"
	"peerlink/node/infobundle"
	"peerlink/node/pki"
)

// A node has exactly one root certificate for ever: its peers have pinned it, and refuse
// another root certificate even if it has the same key. This file finds the copies of the
// certificate in the node's directory, so that a lost root-ca.crt is restored, and
// never replaced with a new certificate.

// Restore restores the files that [Open] needs and that other files in the directory
// determine, if they are missing or damaged: root-ca.crt from its copy in
// db/info-bundle.zip or certs/, and db/nodetype and db/nodeid from root-ca.crt. It needs no
// root key. It returns one line for each restored file. A damaged file is kept with ".damaged"
// added to its name, unless it is blank. If there is nothing to restore, or the directory has no
// node yet, Restore changes nothing.
func Restore(ctx context.Context, path string) (done []string, err error) {
	d := &Dir{path: path}
	if there, err := exists(d.file("db")); err != nil || !there {
		return nil, err
	}
	if _, err := Open(path); err == nil && !durable.HasLockFile(d.file("db")) {
		return nil, nil // the lock would need write access
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err = d.readRoot(); isMissingOrDamaged(err) {
		if done, err = d.restoreRoot(err); err != nil || len(done) == 0 {
			return done, err
		}
	}
	if err != nil {
		return done, err
	}
	more, err := d.restoreIdentity()
	return append(done, more...), err
}

// restoreIdentity restores db/nodetype and db/nodeid from the subject of root-ca.crt. A
// directory without db/index may be one that needs root-ca.crt only ([OpenRoot]): it is
// left as it is, because a node without its records could give a subnet twice.
func (d *Dir) restoreIdentity() (done []string, err error) {
	if there, err := exists(d.file("db", "index")); err != nil || !there {
		return nil, err
	}
	id, err := d.readRoot()
	if err != nil {
		return nil, err
	}
	_, idErr := d.readID()
	_, typeErr := d.readType()
	for _, f := range []struct {
		name, content string
		err           error
	}{
		{"db/nodeid", id.ID, idErr},
		{"db/nodetype", id.Type.OU(), typeErr},
	} {
		if !isMissingOrDamaged(f.err) {
			continue
		}
		line, err := d.restoreFile(f.name, []byte(f.content+"\n"), f.err, "root-ca.crt")
		if err != nil {
			return done, err
		}
		done = append(done, line)
	}
	return done, nil
}

// restoreRoot restores root-ca.crt, which is missing or damaged.
func (d *Dir) restoreRoot(reason error) (done []string, err error) {
	if d.identity, err = d.readIdentity(); err != nil {
		d.identity = pki.Identity{}
		if there, err := exists(d.file("db", "index")); err != nil || !there {
			return nil, err // no node yet
		}
	}
	root, err := d.rootToRestore(nil)
	if err != nil || root == nil {
		return nil, err
	}
	line, err := d.restoreFile("root-ca.crt", root.pem, reason, root.file)
	if err != nil {
		return nil, err
	}
	return []string{line}, nil
}

// restoreFile writes a file that is missing or damaged for the given reason. It returns a
// line about it, which names the source of the content.
func (d *Dir) restoreFile(name string, data []byte, reason error, from string) (line string, err error) {
	path := d.file(filepath.FromSlash(name))
	if errors.Is(reason, fs.ErrNotExist) {
		return name + " is missing: restored from " + from, durable.Create(path, data, 0o644)
	}
	kept, err := moveDamaged(path)
	if err != nil {
		return "", err
	}
	line = name + " is damaged: restored from " + from
	if kept != "" {
		line += "; the damaged file is now " + filepath.Base(kept)
	}
	return line, durable.Create(path, data, 0o644)
}

// moveDamaged adds ".damaged" to the name of a damaged file, and returns the new path. It
// removes a blank file instead, and returns "".
func moveDamaged(path string) (kept string, err error) {
	data, err := readFile(path)
	if err != nil {
		return "", err
	}
	if isBlank(data) {
		return "", os.Remove(path)
	}
	kept = path + ".damaged"
	if err := durable.CheckAbsent(kept); err != nil {
		return "", fmt.Errorf("%s is damaged, and can not be kept as %s, because that file exists: move %s to another folder", path, kept, kept)
	}
	return kept, os.Rename(path, kept)
}

// isBlank reports whether a file has no content but white space and zero bytes, which a power
// cut may leave instead of what was written.
func isBlank(data []byte) bool { return len(bytes.Trim(data, " \t\r\n\x00")) == 0 }

// rootCopy is a copy of the node's root certificate.
type rootCopy struct {
	file string // relative to the directory, with slashes
	pem  []byte
	cert *x509.Certificate
}

// rootToRestore returns the copy from which a missing root-ca.crt has to be restored, or nil
// if no root certificate has been made yet. It fails if a root certificate has been made, but
// no copy of it that is valid is left, or if there are copies of several root certificates and
// it is not certain which is in use. If pub is not nil, the certificate must have this public
// key.
func (d *Dir) rootToRestore(pub crypto.PublicKey) (*rootCopy, error) {
	copies, err := d.rootCopies()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	notYetValid := func(c rootCopy) bool { return now.Before(c.cert.NotBefore) }
	if i := slices.IndexFunc(copies, notYetValid); i >= 0 {
		first := copies[i]
		if copies = slices.DeleteFunc(copies, notYetValid); len(copies) == 0 {
			return nil, fmt.Errorf("%s has no good root-ca.crt, and the copy of it, %s, %w", d.absPath(), first.file, rootNotYetValidError(first.cert, now))
		}
	}
	if len(copies) == 0 {
		return nil, d.checkNothingSigned()
	}
	// The first copy is from the published info-bundle, if there is one.
	first := copies[0]
	if first.file != publishedBundle {
		for _, c := range copies[1:] {
			if !sameCertificate(c.cert, first.cert) {
				return nil, fmt.Errorf("%s has no good root-ca.crt, and %s and %s are both root certificates of the node: copy the one that the peers have to root-ca.crt; it is in every info-bundle of the node", d.absPath(), first.file, c.file)
			}
		}
	}
	if key, ok := first.cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); pub != nil && (!ok || !key.Equal(pub)) {
		return nil, fmt.Errorf("%w: its public key differs from the one in %s, the root certificate that this node has had so far; name the right key with --key, or use a fresh directory for a new node", ErrWrongKey, d.file(filepath.FromSlash(first.file)))
	}
	return &first, nil
}

// checkNothingSigned fails if a file shows that there was a root certificate: if db/index lists
// certificates, if there are peers, reserved subnets or requests, or if an info-bundle was made.
func (d *Dir) checkNothingSigned() error {
	index, err := durable.Read(d.file("db", "index"), maxIndex)
	if ignoreMissing(err) != nil {
		return err
	}
	evidence := "" // a file that shows that there was a root certificate
	if len(bytes.TrimSpace(index)) > 0 {
		evidence = "db/index"
	}
	for _, f := range []struct {
		folder string
		fits   func(name string) bool
	}{
		{"peers", func(name string) bool { return checkID(name) == nil }},
		{"db/subnets/creditors", isSubnet},
		{"db/subnets/debtors", isSubnet},
		{RequestsFolder, func(name string) bool { return !strings.HasPrefix(name, ".") }},
		{"db", func(name string) bool { return "db/"+name == rootCSRFile || "db/"+name == publishedBundle }},
	} {
		found, err := filesIn(d.file(filepath.FromSlash(f.folder)), f.fits)
		if err != nil {
			return err
		}
		if len(found) > 0 && evidence == "" {
			evidence = f.folder + "/" + filepath.Base(found[0])
		}
	}
	if evidence != "" {
		return fmt.Errorf("%s has no good root-ca.crt, although there was one (%s shows that), and no copy of it: take root-ca.crt from a backup, from an info-bundle of this node, or from a peer, which has it as peers/<node ID>/root-ca.crt; peers would refuse another one", d.absPath(), evidence)
	}
	return nil
}

// rootCopies returns the copies of root certificates of d.identity: first the copy in
// db/info-bundle.zip, which was given to peers, then the copies in certs/. If the directory has
// db/root-ca.csr, the certificates must have the key of that request. They need not be valid
// yet. If d.identity is not known, the certificates in certs/ must be listed in db/index.
func (d *Dir) rootCopies() (copies []rootCopy, err error) {
	if data, err := durable.Read(d.PublishedBundle(), infobundle.MaxSize); err == nil {
		if b, err := infobundle.Read(data, time.Now()); err == nil {
			copies = append(copies, rootCopy{publishedBundle, b.RootPEM, b.Root})
		}
	}
	files, err := filesIn(d.file("certs"), func(name string) bool {
		return strings.HasSuffix(name, ".pem") && !strings.HasPrefix(name, ".")
	})
	if err != nil {
		return nil, err
	}
	for _, path := range files {
		data, err := readText(path)
		if err != nil {
			continue
		}
		if cert, err := pki.ParseCertificatePEM(data); err == nil {
			copies = append(copies, rootCopy{"certs/" + filepath.Base(path), data, cert})
		}
	}
	var csrKey []byte
	if data, err := d.readRootCSR(); err == nil {
		if csr, err := pki.ParseCSRPEM(data); err == nil {
			csrKey = csr.RawSubjectPublicKeyInfo
		}
	}
	isOwn := func(c rootCopy) bool {
		now := time.Now()
		if now.Before(c.cert.NotBefore) {
			now = c.cert.NotBefore
		}
		id, err := pki.CheckRoot(c.cert, now)
		if err != nil || csrKey != nil && !bytes.Equal(csrKey, c.cert.RawSubjectPublicKeyInfo) {
			return false
		}
		if d.identity != (pki.Identity{}) {
			return id == d.identity
		}
		listed, err := d.database().subjectID(pki.SerialHex(c.cert.SerialNumber))
		return c.file == publishedBundle || err == nil && listed == id.ID
	}
	return slices.DeleteFunc(copies, func(c rootCopy) bool { return !isOwn(c) }), nil
}

// noRootError returns the error for a directory with db/nodetype and db/nodeid in which
// root-ca.crt is missing or damaged for the given reason. It names the remedy.
func (d *Dir) noRootError(reason error) error {
	what := "it has no root-ca.crt"
	if !errors.Is(reason, fs.ErrNotExist) {
		what = reason.Error()
	}
	root, err := d.rootToRestore(nil)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %s: %w", ErrNotNode, what, err)
	case root == nil:
		return fmt.Errorf("%s is %w: %s; the same \"peerlink init\" command as before finishes an interrupted start", d.absPath(), ErrNotNode, what)
	}
	return fmt.Errorf("%s is %w: %s; \"peerlink init\", without a type, restores it from %s", d.absPath(), ErrNotNode, what, root.file)
}

// RootRestorable reports whether root-ca.crt is missing or damaged and [Restore] can restore it.
// If root-ca.crt is missing or damaged, err is the error of [Open], and otherwise nil.
func RootRestorable(path string) (restorable bool, err error) {
	d := &Dir{path: path}
	_, reason := d.readRoot()
	if !isMissingOrDamaged(reason) {
		return false, nil
	}
	if d.identity, err = d.readIdentity(); err != nil {
		return false, err
	}
	root, err := d.rootToRestore(nil)
	return root != nil && err == nil, d.noRootError(reason)
}
