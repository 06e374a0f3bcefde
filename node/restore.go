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

// A node has exactly one root certificate for ever: its peers have pinned it, and
// refuse another one even if it has the same key. This file finds the copies of the
// certificate in the node's directory, so that a lost root-ca.crt is restored, and
// never replaced with a new certificate.

// Restore restores the files that [Open] needs and that other files in the directory
// determine: root-ca.crt from its copy in db/info-bundle.zip or certs/, and db/nodetype
// and db/nodeid from root-ca.crt. It needs no root key. It returns one line for each
// restored file. If none of these files is missing, or the directory has no node yet,
// Restore changes nothing.
func Restore(ctx context.Context, path string) (done []string, err error) {
	d := &Dir{path: path}
	if there, err := exists(d.file("db")); err != nil || !there {
		return nil, err
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	there, err := exists(d.file("root-ca.crt"))
	switch {
	case err != nil:
		return nil, err
	case there:
		return d.restoreIdentity()
	}
	return d.restoreRoot()
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
	for _, f := range []infobundle.File{
		{Name: "db/nodeid", Data: []byte(id.ID + "\n")},
		{Name: "db/nodetype", Data: []byte(id.Type.OU() + "\n")},
	} {
		err := durable.Create(d.file(filepath.FromSlash(f.Name)), f.Data, 0o644)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return done, err
		}
		done = append(done, f.Name+" is missing: restored from root-ca.crt")
	}
	return done, nil
}

// restoreRoot restores root-ca.crt of the node whose identity is in db/nodetype and
// db/nodeid.
func (d *Dir) restoreRoot() (done []string, err error) {
	if d.identity, err = d.readIdentity(); err != nil {
		if errors.Is(err, ErrNotNode) {
			err = nil // no node yet
		}
		return nil, err
	}
	root, err := d.lostRoot(nil)
	if err != nil || root == nil {
		return nil, err
	}
	if err := durable.Create(d.file("root-ca.crt"), root.pem, 0o644); err != nil {
		return nil, err
	}
	return []string{"root-ca.crt is missing: restored from " + root.file}, nil
}

// rootCopy is a copy of the node's root certificate.
type rootCopy struct {
	file string // relative to the directory, with slashes
	pem  []byte
	cert *x509.Certificate
}

// lostRoot returns the copy from which a missing root-ca.crt has to be restored, or nil
// if no root certificate has been made yet. It fails if a root certificate has been made,
// but no copy of it is left, or if it is not certain which one is in use. If pub is not
// nil, the certificate must have this public key.
func (d *Dir) lostRoot(pub crypto.PublicKey) (*rootCopy, error) {
	copies, err := d.rootCopies()
	if err != nil {
		return nil, err
	}
	if len(copies) == 0 {
		return nil, d.checkNothingSigned()
	}
	// The first one is that of the published info-bundle, if there is one.
	first := copies[0]
	if first.file != publishedBundle {
		for _, c := range copies[1:] {
			if !sameCertificate(c.cert, first.cert) {
				return nil, fmt.Errorf("%s has no root-ca.crt, and %s and %s are both root certificates of the node: copy the one that the peers have to root-ca.crt; it is in every info-bundle of the node", d.show(), first.file, c.file)
			}
		}
	}
	if key, ok := first.cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); pub != nil && (!ok || !key.Equal(pub)) {
		return nil, fmt.Errorf("%w: its public key differs from the one in %s, the root certificate that this node has had so far; name the right key with --key, or use a fresh directory for a new node", ErrWrongKey, d.file(filepath.FromSlash(first.file)))
	}
	return &first, nil
}

// checkNothingSigned fails if db/index lists certificates, so that there was a root
// certificate.
func (d *Dir) checkNothingSigned() error {
	index, err := durable.Read(d.file("db", "index"), maxIndex)
	if err != nil {
		return ignoreMissing(err)
	}
	if len(bytes.TrimSpace(index)) > 0 {
		return fmt.Errorf("%s has no root-ca.crt, although certificates were signed with it (db/index), and no copy of it: take root-ca.crt from a backup, from an info-bundle of this node, or from a peer, which has it as peers/<node ID>/root-ca.crt; peers would refuse another one", d.show())
	}
	return nil
}

// rootCopies returns the copies of root certificates of d.identity: first that in
// db/info-bundle.zip, which was given to peers, then those in certs/. If the directory
// has db/root-ca.csr, the certificates must have its key.
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
	if data, err := readText(d.file("db", "root-ca.csr")); err == nil {
		if csr, err := pki.ParseCSRPEM(data); err == nil {
			csrKey = csr.RawSubjectPublicKeyInfo
		}
	}
	return slices.DeleteFunc(copies, func(c rootCopy) bool {
		id, err := pki.CheckRoot(c.cert, time.Now())
		return err != nil || id != d.identity || csrKey != nil && !bytes.Equal(csrKey, c.cert.RawSubjectPublicKeyInfo)
	}), nil
}

// noRoot returns the error for a directory with db/nodetype and db/nodeid, but without
// root-ca.crt. It names the remedy.
func (d *Dir) noRoot() error {
	root, err := d.lostRoot(nil)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrNotNode, err)
	case root == nil:
		return fmt.Errorf("%s is %w: it has no root-ca.crt; the same \"peerlink init\" command as before finishes an interrupted start", d.show(), ErrNotNode)
	}
	return fmt.Errorf("%s is %w: it has no root-ca.crt; \"peerlink init\", without a type, restores it from %s", d.show(), ErrNotNode, root.file)
}

// LostRoot returns the error of [Open] for a directory whose root-ca.crt is missing,
// and reports whether [Restore] can restore the file.
func LostRoot(path string) (restorable bool, err error) {
	d := &Dir{path: path}
	if _, err := os.Stat(d.file("root-ca.crt")); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if d.identity, err = d.readIdentity(); err != nil {
		return false, err
	}
	root, err := d.lostRoot(nil)
	return root != nil && err == nil, d.noRoot()
}
