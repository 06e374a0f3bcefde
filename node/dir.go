// Package node works on a Swaptacular node's directory: the place where a node
// keeps who it is, what its root key has signed, and everything about its
// peers. The layout is the one of the reference scripts ("The node's
// directory" in the specification), so that they, OpenSSL and peerlink can be
// used on the same directory in any order.
//
// A [Dir] is opened with [Open] or made with [Init]. Nothing in it is secret
// except private/root-ca.key, which may be somewhere else altogether: methods
// that sign take the opened root key as an argument and check that it belongs
// to this node.
//
// Becoming peers takes two steps on each side. [Dir.SignPeer] takes the other
// node's info-bundle, pins its root certificate for ever and makes the peer
// certificate to be sent back. [Dir.RegisterPeer] takes the peer certificate
// that came back. From then on [Dir.Peer] reports the peer as registered, and
// a running service makes it active.
//
// Every change is made so that a crash at any moment leaves a directory on
// which both peerlink and the reference scripts can go on: files are replaced
// as a whole, a new peer's directory appears as a whole, numbers are taken
// before they are used.
package node

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

var (
	// ErrNotNode means that a directory is not, or not yet, a node's directory.
	ErrNotNode = errors.New("not a node's directory")
	// ErrUnknownPeer means that there is no peer with the given node ID.
	ErrUnknownPeer = errors.New("unknown peer")
	// ErrNotRegistered means that the peer's certificate has not been registered yet.
	ErrNotRegistered = errors.New("peer not registered")
	// ErrDeactivated means that the link with a peer was ended, for good.
	ErrDeactivated = errors.New("peer is deactivated")
	// ErrOtherRoot means that an info-bundle in a known peer's name has another
	// root certificate than the one that is pinned: it is not the peer's.
	ErrOtherRoot = errors.New("known already with another root certificate")
	// ErrWrongKey means that a key is not this node's root key.
	ErrWrongKey = errors.New("not this node's root key")
)

// Dir is a node's directory.
type Dir struct {
	path     string
	identity pki.Identity
	root     *x509.Certificate
}

// Open opens the directory of a node made by [Init] or by the reference
// scripts. It fails with [ErrNotNode] where there is none.
func Open(path string) (*Dir, error) {
	d := &Dir{path: path}
	ou, err := readLine(d.file("db", "nodetype"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, d.notNode()
	}
	if err != nil {
		return nil, err
	}
	if d.identity.Type, err = nodetype.ParseOU(ou); err != nil {
		return nil, fmt.Errorf("%s: %w", d.file("db", "nodetype"), err)
	}
	if d.identity.ID, err = readLine(d.file("db", "nodeid")); err != nil {
		return nil, fmt.Errorf("%s is %w: %v", d.show(), ErrNotNode, err)
	}
	id, err := d.readRoot()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is %w: it has no root-ca.crt; \"peerlink init\" finishes an interrupted start", d.show(), ErrNotNode)
	}
	if err != nil {
		return nil, err
	}
	if id != d.identity {
		return nil, fmt.Errorf("%s is the certificate of %s, but db/nodetype and db/nodeid say %s", d.file("root-ca.crt"), id, d.identity)
	}
	return d, nil
}

// OpenRoot opens a directory in which root-ca.crt is enough: that and the root key
// are all that making shares of the key, restoring it and trying a backup need.
// Only the methods Path, Identity, Root, DefaultKeyFile, CheckKey and NoteDrill of the
// result can be used. Where [Open] succeeds, it is the same.
func OpenRoot(path string) (*Dir, error) {
	d, err := Open(path)
	if !errors.Is(err, ErrNotNode) {
		return d, err
	}
	d = &Dir{path: path}
	d.identity, err = d.readRoot()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no root-ca.crt, with which the root key is compared: name the node's directory with --dir, or copy root-ca.crt there; every peer and every info-bundle of the node has it", d.show())
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

// readRoot reads root-ca.crt, and returns whose certificate it is.
func (d *Dir) readRoot() (pki.Identity, error) {
	path := d.file("root-ca.crt")
	data, err := readText(path)
	if err != nil {
		return pki.Identity{}, err
	}
	if d.root, err = pki.ParseCertificatePEM(data); err != nil {
		return pki.Identity{}, fmt.Errorf("%s: %w", path, err)
	}
	id, err := pki.IdentityOf(d.root.RawSubject)
	if err != nil {
		return pki.Identity{}, fmt.Errorf("%s: %w", path, err)
	}
	return id, nil
}

// notNode is the error for a directory without db/nodetype. Nothing that is left of a
// node is completed by "peerlink init", which would make another one.
func (d *Dir) notNode() error {
	if ok, _ := exists(d.file("root-ca.crt")); ok {
		return fmt.Errorf("%s is %w: it has root-ca.crt, but no db/nodetype; restore the rest of the directory from a backup (\"peerlink key join\", \"key drill\" and \"key split\" need root-ca.crt only)", d.show(), ErrNotNode)
	}
	return fmt.Errorf("%s is %w: it has no db/nodetype; name the right one with --dir, or make one with \"peerlink init\"", d.show(), ErrNotNode)
}

// Path is the directory's path, as given to [Open].
func (d *Dir) Path() string { return d.path }

// Identity is the node's type and ID.
func (d *Dir) Identity() pki.Identity { return d.identity }

// Root is the node's self-signed root certificate.
func (d *Dir) Root() *x509.Certificate { return d.root }

// DefaultKeyFile is where the root key lies unless its owner keeps it elsewhere.
func (d *Dir) DefaultKeyFile() string { return DefaultKeyFile(d.path) }

// DefaultKeyFile is where the root key of the node in the given directory lies
// unless its owner keeps it elsewhere.
func DefaultKeyFile(dir string) string { return filepath.Join(dir, "private", "root-ca.key") }

// CheckKey fails with [ErrWrongKey] if key is not this node's root key.
func (d *Dir) CheckKey(key crypto.Signer) error {
	type equaler interface{ Equal(crypto.PublicKey) bool }
	if pub, ok := key.Public().(equaler); !ok || !pub.Equal(d.root.PublicKey) {
		return fmt.Errorf("%w: its public key differs from the one in %s; name the right key with --key", ErrWrongKey, d.file("root-ca.crt"))
	}
	return nil
}

// CreditorsSubnet is the hex form of the creditor IDs that a creditors agent
// uses itself, before they are translated for a peer (creditors-subnet.txt).
func (d *Dir) CreditorsSubnet() (string, error) {
	return readLine(d.file("creditors-subnet.txt"))
}

// DebtorsSubnet is the hex form of the debtor IDs that belong to the node: an
// accounting authority's are those that start with its node ID, a debtors
// agent's are written when its peer is registered (debtors-subnet.txt).
func (d *Dir) DebtorsSubnet() (string, error) {
	if d.identity.Type == nodetype.AccountingAuthority {
		return d.identity.ID, nil
	}
	return readLine(d.file("debtors-subnet.txt"))
}

func (d *Dir) file(elem ...string) string {
	return filepath.Join(append([]string{d.path}, elem...)...)
}

// show is the directory's path for messages: "." would say little to a reader.
func (d *Dir) show() string {
	if abs, err := filepath.Abs(d.path); err == nil {
		return abs
	}
	return d.path
}

// sameCertificate reports whether two PEM files hold the same certificate,
// whatever text stands around it.
func sameCertificate(a, b *x509.Certificate) bool { return bytes.Equal(a.Raw, b.Raw) }

// isDir reports whether path is a directory.
func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}
