package node

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"peerlink/internal/durable"
	"peerlink/internal/excerpt"
	"peerlink/internal/guard"
	"peerlink/node/infobundle"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// ErrExists means that the directory holds a node already.
var ErrExists = errors.New("there is a node already")

// DamagedKeyRemedy is what to do about a damaged file of the root key.
const DamagedKeyRemedy = "if the file is damaged, move it away, and put a backup in its place, or restore the key from shares (\"peerlink key join\")"

// WriteKeyFile writes a new root key, encrypted and in PEM, to a new file; it never
// overwrites a file. If the file's directory is missing, WriteKeyFile creates it with
// access for its owner only. The file is read back and must pass check before it
// appears under its name.
func WriteKeyFile(path string, pem []byte, check func(pem []byte) error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	err := durable.CreateChecked(path, pem, 0o600, func(written []byte) error {
		if err := check(written); err != nil {
			return fmt.Errorf("%s does not read back as it was written, and was removed: %w", path, err)
		}
		return nil
	})
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists already; a root key is never overwritten", path)
	}
	return err
}

// InitOptions are the parameters of [Init].
type InitOptions struct {
	Type    nodetype.Type
	ID      string   // accounting authorities: 8 hex digits; agents: empty, or the ID derived from the key
	Servers []string // "host:port" for stomp.toml
	Key     crypto.Signer
	// Unfinished makes Init mark the node as one whose first server certificate and info-bundle are
	// missing, until [Dir.FinishInit].
	Unfinished bool
}

// unfinishedFile is the name of a file that exists from the beginning of an init until the first
// server certificate and info-bundle have been made. The reference scripts do not read it.
const unfinishedFile = "db/unfinished-init"

// InitUnfinished reports whether the node's first server certificate and info-bundle are to be made yet,
// because an init was interrupted ([InitOptions.Unfinished]).
func (d *Dir) InitUnfinished() (bool, error) {
	return exists(d.file(filepath.FromSlash(unfinishedFile)))
}

// FinishInit records that the node's first server certificate and info-bundle have been made.
func (d *Dir) FinishInit() error {
	return ignoreMissing(os.Remove(d.file(filepath.FromSlash(unfinishedFile))))
}

var aaID = regexp.MustCompile(`^[0-9a-f]{8}$`)

// CheckID checks the node ID chosen for an accounting authority.
func CheckID(id string) error {
	if !aaID.MatchString(id) {
		return fmt.Errorf("%q cannot be an accounting authority's ID: expected exactly 8 lowercase hex digits, for example 1234abcd", excerpt.Of(id))
	}
	return nil
}

// BegunID returns the node ID of an interrupted [Init] in a directory, or "" if there is none.
func BegunID(path string) string {
	id, _ := (&Dir{path: path}).readID()
	return id
}

// CheckNoNode checks that [Init] may make a node in the directory. It fails with [ErrExists]
// if the directory has a root-ca.crt, which Init writes last. It also fails if the directory
// had a root-ca.crt that is lost and cannot be restored. The files of an interrupted Init are
// no error.
func CheckNoNode(path string) error {
	d := &Dir{path: path}
	ok, err := exists(d.file("root-ca.crt"))
	if err != nil {
		return err
	}
	if !ok {
		if d.identity, err = d.readIdentity(); err == nil {
			_, err = d.rootToRestore(nil)
			return err
		}
		return nil
	}
	if d, err = Open(path); err != nil {
		return fmt.Errorf("%w, with a missing or invalid file: %v", ErrExists, err)
	}
	return fmt.Errorf("%w: %s is %s", ErrExists, d.absPath(), d.identity)
}

// CheckInitFolder returns an error if [Init] must not make a node's directory at path, because other users
// could replace what is there. It is for a check before a root key is made.
func CheckInitFolder(path string) error {
	if err := checkSafeForSuperuser(path); err != nil {
		return err
	}
	return guard.CheckNewFolder(path)
}

// Init makes a node's directory, with a self-signed root certificate. It completes the
// directory of an interrupted Init; files that are not blank, such as stomp.toml, stay as
// they are. The root certificate is written last. Init never makes a second root
// certificate: if the directory has a copy of an earlier one, Init uses the copy.
func Init(ctx context.Context, path string, o InitOptions) (*Dir, error) {
	if err := CheckNoNode(path); err != nil {
		return nil, err
	}
	id := pki.Identity{Type: o.Type, ID: o.ID}
	if o.Type.IDDerived() {
		derived, err := pki.DerivedID(o.Key.Public())
		if err != nil {
			return nil, err
		}
		if o.ID != "" && o.ID != derived {
			return nil, fmt.Errorf("the ID of a %s is derived from its root key (%s) and can not be chosen", o.Type, derived)
		}
		id.ID = derived
	} else if err := CheckID(o.ID); err != nil {
		return nil, err
	}
	if len(o.Servers) == 0 || len(o.Servers) > maxServers {
		return nil, fmt.Errorf("1 to %d server addresses are needed", maxServers)
	}
	for _, s := range o.Servers {
		if err := CheckServer(s); err != nil {
			return nil, err
		}
	}
	if err := CheckInitFolder(path); err != nil {
		return nil, err
	}
	d := &Dir{path: path, identity: id}
	if err := d.checkSameIdentity(); err != nil {
		return nil, err
	}
	for _, dir := range []string{"", "db", "certs", "nodeinfo", "peers"} {
		if err := os.MkdirAll(d.file(dir), 0o755); err != nil {
			return nil, err
		}
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := errors.Join(d.writeGitIgnore(), d.writeMissing(o)); err != nil {
		return nil, err
	}
	rootPEM, err := d.restoreOrSignRoot(o.Key)
	if err != nil {
		return nil, err
	}
	if err := durable.Create(d.file("root-ca.crt"), rootPEM, 0o644); err != nil {
		return nil, err
	}
	return Open(path)
}

// restoreOrSignRoot returns the content of root-ca.crt for a directory that lacks it: the copy
// of a root certificate that has been made already, or else a new root certificate, signed with
// the key. It records the certificate.
func (d *Dir) restoreOrSignRoot(key crypto.Signer) (pem []byte, err error) {
	earlier, err := d.rootToRestore(key.Public())
	if err != nil {
		return nil, err
	}
	if earlier != nil {
		d.root, pem = earlier.cert, earlier.pem
		return pem, d.database().record(d.root)
	}
	serial, err := d.database().takeRootSerial()
	if err != nil {
		return nil, err
	}
	if d.root, err = pki.SelfSign(d.identity, key, serial, time.Now()); err != nil {
		return nil, err
	}
	return pki.EncodeCertificatePEM(d.root), d.database().record(d.root)
}

// checkSameIdentity checks that the files of an interrupted Init, if there are any, belong to
// the same node.
func (d *Dir) checkSameIdentity() error {
	for name, want := range map[string]string{"nodetype": d.identity.Type.OU(), "nodeid": d.identity.ID} {
		got, err := readLine(d.file("db", name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if got != "" && got != want {
			return fmt.Errorf("%s was begun as another node (db/%s says %q, not %q): use a fresh directory", d.absPath(), name, got, want)
		}
	}
	return nil
}

// writeMissing writes the missing and blank files of a new directory, except the root
// certificate.
func (d *Dir) writeMissing(o InitOptions) error {
	// The counters and creditors-subnet.txt are written first, because the reference's init does
	// not create them in a directory that has db/nodetype and db/nodeid. The counters are also
	// among the generated files, which are written at the end; a file that exists is not
	// written again.
	files := d.counterFiles()
	if o.Unfinished {
		files = append(files, infobundle.File{Name: unfinishedFile, Data: []byte("The first server certificate and info-bundle are missing: \"peerlink init\" makes them.\n")})
	}
	if d.identity.Type == nodetype.CreditorsAgent {
		files = append(files, infobundle.File{Name: "creditors-subnet.txt", Data: []byte("000001\n")})
	}
	files = append(files,
		infobundle.File{Name: "db/nodetype", Data: []byte(d.identity.Type.OU() + "\n")},
		infobundle.File{Name: "db/nodeid", Data: []byte(d.identity.ID + "\n")},
		infobundle.File{Name: "db/index", Data: nil},
		infobundle.File{Name: "nodeinfo/stomp.toml", Data: EncodeStompTOML(d.identity.Type, o.Servers)})
	files = append(files, d.generatedFiles()...)
	for _, f := range files {
		path := d.file(filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		err := durable.Create(path, f.Data, 0o644)
		if errors.Is(err, fs.ErrExist) {
			err = d.replaceBlank(path, f.Data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// replaceBlank replaces the content of an existing file if the file is blank.
func (d *Dir) replaceBlank(path string, data []byte) error {
	old, err := readFile(path)
	if err != nil || !isBlank(old) || len(data) == 0 {
		return err
	}
	return durable.Replace(path, data, 0o644)
}

// generatedFiles returns the files of a new directory whose content is determined by the
// node's identity, or is random (db/serial), so that [Dir.Repair] can create them again.
func (d *Dir) generatedFiles() []infobundle.File {
	return append([]infobundle.File{
		{Name: "db/index.attr", Data: []byte("unique_subject = no\n")},
		{Name: "db/serial", Data: []byte(pki.SerialHex(randomSerial()) + "\n")},
		{Name: "db/crlnumber", Data: []byte("1001\n")},
		{Name: "root-ca.conf", Data: rootCAConf(d.identity)},
	}, d.counterFiles()...)
}

// counterFiles returns those generated files that hold the numbers of the subnets which an
// accounting authority has given last. Agents have no such files.
func (d *Dir) counterFiles() []infobundle.File {
	if d.identity.Type != nodetype.AccountingAuthority {
		return nil
	}
	return []infobundle.File{
		{Name: "db/subnets/creditors/SEQNUM", Data: []byte("0\n")},
		{Name: "db/subnets/debtors/SEQNUM", Data: []byte("-1\n")},
	}
}

// SignServer signs and records a server certificate for a CSR of this node, with the given
// validity. It fails if the CSR's subject is another name, or if its key has been revoked.
func (d *Dir) SignServer(ctx context.Context, key crypto.Signer, csr *x509.CertificateRequest, validity time.Duration) (*x509.Certificate, error) {
	return d.SignServerFunc(ctx, key, csr, validity, func(*x509.Certificate) error { return nil })
}

// SignServerFunc is like [Dir.SignServer], but calls beforeRecord with the signed certificate
// before the certificate is recorded. If beforeRecord fails, for example because the
// certificate cannot be written to its file, SignServerFunc returns the error and records
// nothing.
func (d *Dir) SignServerFunc(ctx context.Context, key crypto.Signer, csr *x509.CertificateRequest, validity time.Duration, beforeRecord func(*x509.Certificate) error) (*x509.Certificate, error) {
	id, err := pki.IdentityOf(csr.RawSubject)
	if err != nil {
		return nil, fmt.Errorf("the certificate signing request: %w", err)
	}
	if id != d.identity {
		return nil, fmt.Errorf("the certificate signing request is for %s; this node, %s, signs server certificates for itself only", id, d.identity)
	}
	if err := d.CheckRootDates(time.Now()); err != nil {
		return nil, err
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := d.CheckNotRevoked(csr.PublicKey); err != nil {
		return nil, err
	}
	return d.sign(key, func(a *pki.Authority, serial *big.Int) (*x509.Certificate, error) {
		cert, err := a.SignServer(csr, serial, time.Now(), validity)
		if err == nil {
			err = beforeRecord(cert)
		}
		return cert, err
	})
}
