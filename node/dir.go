// Package node reads and changes the directory of a Swaptacular node, which holds
// the node's identity, the records of the certificates that its root key has signed,
// and the files of its peers. The layout is the same as that of the reference scripts
// ("The node's directory" in the specification): the scripts, OpenSSL and peerlink
// can be used on the same directory in any order.
//
// A [Dir] is opened with [Open] or made with [Init]. The only secret in the directory
// is private/root-ca.key, which may also be stored elsewhere: methods that sign take
// the decrypted root key as an argument, and check that it belongs to this node.
//
// Becoming peers takes two steps on each side. [Dir.SignPeer] takes the other
// node's info-bundle, pins the root certificate in it permanently, and makes the
// peer certificate that has to be sent to the other node. [Dir.RegisterPeer] takes
// the peer certificate that the other node has issued to this node. From then on
// [Dir.Peer] reports the peer as registered, and a running service makes it active.
//
// After a crash at any moment, both peerlink and the reference scripts can continue
// with the directory: files are replaced atomically, the directory of a new peer
// appears atomically, and a subnet is reserved before it is put into a certificate.
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
	"strings"
	"time"

	"peerlink/internal/textfile"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

var (
	// ErrNotNode means that a directory is not, or not yet, a node's directory.
	ErrNotNode = errors.New("not a node's directory")
	// ErrUnknownPeer means that there is no peer with the given node ID.
	ErrUnknownPeer = errors.New("unknown peer")
	// ErrNotRegistered means that no peer certificate issued by the peer has been registered yet.
	ErrNotRegistered = errors.New("peer not registered")
	// ErrDeactivated means that the link with a peer was ended permanently.
	ErrDeactivated = errors.New("peer is deactivated")
	// ErrOtherRoot means that an info-bundle in the name of a known peer has another root
	// certificate than the pinned root certificate.
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
// scripts. It fails with [ErrNotNode] if path is not such a directory.
func Open(path string) (*Dir, error) {
	d := &Dir{path: path}
	var err error
	if d.identity, err = d.readIdentity(); err != nil {
		return nil, err
	}
	id, err := d.readRoot()
	if isMissingOrDamaged(err) {
		return nil, d.noRootError(err)
	}
	if err != nil {
		return nil, err
	}
	if id != d.identity {
		return nil, d.identityMismatchError(id)
	}
	return d, nil
}

// CheckIdentity checks that the directory still holds the node that it held when it was opened.
// It returns an error if the identity cannot be read, or if the identity or the root key has
// changed. Another root certificate with the same key is no error.
func (d *Dir) CheckIdentity() error {
	now, err := Open(d.path)
	if err != nil {
		return err
	}
	if now.identity == d.identity && bytes.Equal(now.root.RawSubjectPublicKeyInfo, d.root.RawSubjectPublicKeyInfo) {
		return nil
	}
	return fmt.Errorf("%s holds another node now, %s with root key %s: this process works for %s with root key %s; put the directory of that node back",
		d.absPath(), now.identity, pki.Fingerprint(now.root.PublicKey), d.identity, pki.Fingerprint(d.root.PublicKey))
}

// identityMismatchError returns the error for a directory whose db/nodetype or db/nodeid
// contradicts root-ca.crt, the certificate of id. The two files are not restored from
// root-ca.crt, because root-ca.crt may be the file that belongs to another node.
func (d *Dir) identityMismatchError(id pki.Identity) error {
	var remedies []string
	if d.identity.Type != id.Type {
		remedies = append(remedies, fmt.Sprintf("write %s into db/nodetype", id.Type.OU()))
	}
	if d.identity.ID != id.ID {
		remedies = append(remedies, fmt.Sprintf("write %s into db/nodeid", id.ID))
	}
	return fmt.Errorf("%s is the certificate of %s, but db/nodetype and db/nodeid say %s: what the certificate says is right if it is this node's, so %s; otherwise restore root-ca.crt from a backup",
		d.file("root-ca.crt"), id, d.identity, strings.Join(remedies, ", and "))
}

// readIdentity reads db/nodetype and db/nodeid.
func (d *Dir) readIdentity() (id pki.Identity, err error) {
	if id.Type, err = d.readType(); err != nil {
		return id, d.notNodeError("db/nodetype", err)
	}
	if id.ID, err = d.readID(); err != nil {
		return id, d.notNodeError("db/nodeid", err)
	}
	return id, nil
}

// errDamaged is wrapped by the errors for a file that can be read, but has invalid content.
var errDamaged = errors.New("damaged")

// isMissingOrDamaged reports whether an error means that a file is missing or damaged.
func isMissingOrDamaged(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errDamaged) || errors.Is(err, textfile.ErrEncoding)
}

func (d *Dir) readType() (nodetype.Type, error) {
	ou, err := readLine(d.file("db", "nodetype"))
	if err != nil {
		return 0, err
	}
	t, err := nodetype.ParseOU(ou)
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %w", d.file("db", "nodetype"), errDamaged, err)
	}
	return t, nil
}

func (d *Dir) readID() (string, error) {
	id, err := readLine(d.file("db", "nodeid"))
	if err != nil {
		return "", err
	}
	if err := checkID(id); err != nil {
		return "", fmt.Errorf("%s: %w: %w", d.file("db", "nodeid"), errDamaged, err)
	}
	return id, nil
}

// OpenRoot opens a directory that needs to contain root-ca.crt only. It is for
// splitting the root key into shares, restoring the key, and testing a backup of the
// key, none of which need more. If [Open] succeeds, OpenRoot returns the same result.
// Otherwise only the methods Path, Identity, Root, DefaultKeyFile, CheckKey and
// RecordDrill of the result may be used.
func OpenRoot(path string) (*Dir, error) {
	d, err := Open(path)
	if !errors.Is(err, ErrNotNode) {
		return d, err
	}
	d = &Dir{path: path}
	d.identity, err = d.readRoot()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no root-ca.crt, with which the root key is compared: name the node's directory with --dir, or copy root-ca.crt there; every peer and every info-bundle of the node has it", d.absPath())
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

// readRoot reads root-ca.crt into d.root, and returns the identity of its subject.
func (d *Dir) readRoot() (pki.Identity, error) {
	path := d.file("root-ca.crt")
	data, err := readText(path)
	if err != nil {
		return pki.Identity{}, err
	}
	if d.root, err = pki.ParseCertificatePEM(data); err != nil {
		return pki.Identity{}, fmt.Errorf("%s: %w: %w", path, errDamaged, err)
	}
	id, err := pki.IdentityOf(d.root.RawSubject)
	if err != nil {
		return pki.Identity{}, fmt.Errorf("%s: %w", path, err)
	}
	return id, nil
}

// notNodeError returns the error for a directory in which the file db/nodetype or db/nodeid
// cannot be read for the given reason. If root-ca.crt exists, the error does not suggest making
// a new node.
func (d *Dir) notNodeError(file string, reason error) error {
	if !isMissingOrDamaged(reason) {
		return fmt.Errorf("%s is %w: %v", d.absPath(), ErrNotNode, reason)
	}
	what := "it has no " + file
	if !errors.Is(reason, fs.ErrNotExist) {
		what = reason.Error()
	}
	root, _ := exists(d.file("root-ca.crt"))
	index, _ := exists(d.file("db", "index"))
	switch {
	case root && index:
		return fmt.Errorf("%s is %w: %s; \"peerlink init\", without a type, restores it from root-ca.crt", d.absPath(), ErrNotNode, what)
	case root:
		return fmt.Errorf("%s is %w: it has root-ca.crt, but %s; restore the rest of the directory from a backup (\"peerlink key join\", \"key drill\" and \"key split\" need root-ca.crt only)", d.absPath(), ErrNotNode, what)
	case index:
		return fmt.Errorf("%s is %w: %s, and it has no root-ca.crt; \"peerlink init\", without a type, restores what can be restored", d.absPath(), ErrNotNode, what)
	case file == "db/nodeid":
		return fmt.Errorf("%s is %w: %s; the same \"peerlink init\" command as before finishes an interrupted start", d.absPath(), ErrNotNode, what)
	}
	return fmt.Errorf("%s is %w: %s; name the right one with --dir, or make one with \"peerlink init\"", d.absPath(), ErrNotNode, what)
}

// Path returns the directory's path, as given to [Open].
func (d *Dir) Path() string { return d.path }

// Identity returns the node's type and ID.
func (d *Dir) Identity() pki.Identity { return d.identity }

// Root returns the node's self-signed root certificate.
func (d *Dir) Root() *x509.Certificate { return d.root }

// DefaultKeyFile returns the default path of the root key's file.
func (d *Dir) DefaultKeyFile() string { return DefaultKeyFile(d.path) }

// DefaultKeyFile returns the default path of the root key's file for the node in the
// given directory.
func DefaultKeyFile(dir string) string { return filepath.Join(dir, "private", "root-ca.key") }

// CheckKey fails with [ErrWrongKey] if key is not this node's root key.
func (d *Dir) CheckKey(key crypto.Signer) error {
	type equaler interface{ Equal(crypto.PublicKey) bool }
	if pub, ok := key.Public().(equaler); !ok || !pub.Equal(d.root.PublicKey) {
		return fmt.Errorf("%w: its public key differs from the one in %s; name the right key with --key", ErrWrongKey, d.file("root-ca.crt"))
	}
	return nil
}

// CheckRootDates fails if the node's root certificate is not valid yet: this machine's clock is
// wrong, or was wrong when the node was made. The error names the remedy.
func (d *Dir) CheckRootDates(now time.Time) error {
	if !now.Before(d.root.NotBefore) {
		return nil
	}
	return fmt.Errorf("%s %w", d.file("root-ca.crt"), rootNotYetValidError(d.root, now))
}

// rootNotYetValidError returns the error, to follow the name of the file, for a root certificate
// that is not valid yet.
func rootNotYetValidError(root *x509.Certificate, now time.Time) error {
	return fmt.Errorf("is valid only from %s on, and this machine's clock shows %s: if the clock is wrong, set it; if it was wrong when the node was made, %s",
		root.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), RemakeRoot)
}

// RemakeRoot says what to do about a root certificate of this node with wrong dates. It follows
// a clause that begins with "if".
const RemakeRoot = "and nobody has been given an info-bundle or a certificate of this node, remove root-ca.crt and the folders db, certs and peers, " +
	"and make the node again with the same \"peerlink init\" command, which uses the root key that is there"

// CreditorsSubnet returns the creditors agent's own subnet of creditor IDs, in hex
// (creditors-subnet.txt). These IDs are translated for each peer.
func (d *Dir) CreditorsSubnet() (string, error) {
	return readLine(d.file("creditors-subnet.txt"))
}

func (d *Dir) file(elem ...string) string {
	return filepath.Join(append([]string{d.path}, elem...)...)
}

// absPath returns the directory's absolute path for messages, in which a path such as
// "." would be of little use.
func (d *Dir) absPath() string {
	if abs, err := filepath.Abs(d.path); err == nil {
		return abs
	}
	return d.path
}

// sameCertificate reports whether a and b are the same certificate. Unlike the PEM
// files, the certificates compare equal regardless of text around the PEM block.
func sameCertificate(a, b *x509.Certificate) bool { return bytes.Equal(a.Raw, b.Raw) }

// isDir reports whether path is a directory.
func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}
