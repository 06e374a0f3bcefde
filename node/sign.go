package node

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"peerlink/internal/durable"
	"peerlink/internal/textfile"
	"peerlink/node/infobundle"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
	"peerlink/node/signrecord"
)

// SignResult is the result of [Dir.SignPeer].
type SignResult struct {
	Peer          *Peer
	CertFile      string // the peer certificate, to be sent to the peer
	New           bool   // the peer was not known before
	Renewed       bool   // a known peer has a new certificate, because the earlier one was not valid now
	Updated       bool   // a known peer's nodeinfo has been replaced by a newer one
	IgnoredReason string // why a known peer's nodeinfo, which differs from the bundle's, was not replaced
}

// SignPeer makes the node of a verified info-bundle a peer: it reserves a subnet if
// this node is an accounting authority, signs the peer certificate, and pins the root
// certificate. For a known peer, SignPeer replaces older nodeinfo, and fails with
// [ErrOtherRoot] if the bundle has another root certificate ("Becoming peers", step 2). If the
// peer certificate is not valid now, because it was signed with a wrong clock, SignPeer
// replaces it with a new one, with the same subnet.
//
// key returns the node's decrypted root key. It is called only if the key is needed,
// which is not the case for a known peer with a valid certificate.
func (d *Dir) SignPeer(ctx context.Context, b *infobundle.Bundle, key func() (crypto.Signer, error)) (*SignResult, error) {
	if err := d.checkEligible(b); err != nil {
		return nil, err
	}
	if err := d.CheckRootDates(time.Now()); err != nil {
		return nil, err
	}
	dir := d.file("peers", b.Identity.ID)
	// key may prompt for a passphrase, so the lock is not held while it is called.
	var signer crypto.Signer
	if isNew := !isDir(dir); isNew || d.needsRenewal(dir, b) {
		// Checked again under the lock. Nobody should type a passphrase for nothing.
		err := d.checkRequestRecord(b)
		if isNew && err == nil {
			err = errors.Join(d.checkPeerLimit(), d.checkRemembered(b))
		}
		if err != nil {
			return nil, err
		}
		if signer, err = key(); err != nil {
			return nil, err
		}
		if err := d.CheckKey(signer); err != nil {
			return nil, err
		}
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := d.removeLeftovers(); err != nil {
		return nil, err
	}
	res := &SignResult{CertFile: d.IssuedFile(b.Identity.ID)}
	if isDir(dir) {
		if res.Updated, err = d.updatePeer(dir, b, true); err == nil && !res.Updated {
			res.IgnoredReason = whyIgnored(dir, b)
		}
		if err == nil && signer != nil && d.needsRenewal(dir, b) {
			res.Renewed, err = true, d.renewPeer(ctx, dir, b, signer)
		}
	} else if signer == nil {
		return nil, fmt.Errorf("peer %s was removed while it was being signed: try again", b.Identity.ID)
	} else {
		res.New, err = true, d.addPeer(ctx, dir, b, signer)
	}
	if err != nil {
		return nil, err
	}
	res.Peer, err = d.Peer(b.Identity.ID)
	return res, err
}

// checkEligible checks that the node of a bundle can be a peer of this node, and that the
// bundle's stomp.toml is valid.
func (d *Dir) checkEligible(b *infobundle.Bundle) error {
	if b.Identity == d.identity || bytes.Equal(b.Root.RawSubjectPublicKeyInfo, d.root.RawSubjectPublicKeyInfo) {
		return errors.New("this is the node's own info-bundle: send it to others, and sign theirs")
	}
	if !d.identity.Type.CanPeer(b.Identity.Type) {
		want := "an accounting authority"
		if d.identity.Type == nodetype.AccountingAuthority {
			want = "a creditors agent or a debtors agent"
		}
		return fmt.Errorf("the bundle is from a node of type %s: the peer of a node of type %s must be %s", b.Identity.Type, d.identity.Type, want)
	}
	if _, err := ParseStompTOML(b.File(infobundle.StompTOML), d.identity.ID); err != nil {
		return fmt.Errorf("%w: %w", infobundle.ErrInvalid, err)
	}
	return nil
}

// updatePeer replaces the nodeinfo of a known peer with newer nodeinfo. It never
// accepts older nodeinfo or another root certificate. If byOperator is true, because an
// operator has requested the update, updatePeer also replaces nodeinfo whose date is
// invalid or too far in the future; earlier versions accepted such dates.
func (d *Dir) updatePeer(dir string, b *infobundle.Bundle, byOperator bool) (updated bool, err error) {
	if err := checkPinnedRoot(dir, b); err != nil {
		return false, err
	}
	old, err := knownDate(dir)
	if err != nil {
		return false, err
	}
	if byOperator && infobundle.CheckDate(old, time.Now()) != nil {
		old = ""
	}
	if b.UpdatedAt() <= old {
		return false, nil
	}
	if err := pinRevokedKeys(dir, b); err != nil {
		return false, err
	}
	return true, d.replaceNodeinfo(dir, b.Nodeinfo)
}

// checkPinnedRoot checks that an info-bundle of a known peer has the root certificate that is pinned in
// the peer's directory.
func checkPinnedRoot(dir string, b *infobundle.Bundle) error {
	pinned, err := readCert(dir, "root-ca.crt")
	if err != nil {
		return fmt.Errorf("peer %s: %w", b.Identity.ID, err)
	}
	switch {
	case sameCertificate(pinned, b.Root):
		return nil
	case bytes.Equal(pinned.RawSubjectPublicKeyInfo, b.Root.RawSubjectPublicKeyInfo):
		return otherCertificateError(b)
	}
	return fmt.Errorf("%s is %w (%s): "+
		"anyone can make an info-bundle in this name, and accepting it would be a break-in, so it is refused. If its owner has lost the root key, and tells you so, \"peerlink peer replace\" replaces it (or \"peerlink request new --replace\", if this node's root key is on another machine)",
		b.Identity, ErrOtherRoot, pki.Fingerprint(pinned.PublicKey))
}

// otherCertificateError returns the error for an info-bundle with the pinned root key, but with
// another root certificate.
func otherCertificateError(b *infobundle.Bundle) error {
	return fmt.Errorf("%s is %w: same root key (%s), another certificate. The pinned certificate can not be replaced: "+
		"ask the node's owner to put the original root-ca.crt back, and for an info-bundle with it",
		b.Identity, ErrOtherRoot, pki.Fingerprint(b.Root.PublicKey))
}

// knownDate returns the date of a peer's nodeinfo, or "" if it has no date, or one that can never be read.
func knownDate(dir string) (string, error) {
	data, err := textfile.Read(filepath.Join(dir, "nodeinfo", infobundle.UpdatedAt), infobundle.MaxUpdatedAt)
	if isUnreadable(err) {
		return "", nil
	}
	return infobundle.DateOf(data), err
}

// isUnreadable reports whether an error means that a file of a peer's nodeinfo is missing, or has a
// content that can never be read. Earlier versions took over such files from info-bundles.
func isUnreadable(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, textfile.ErrEncoding) || errors.Is(err, durable.ErrNotRegular) || errors.Is(err, durable.ErrLarger)
}

// whyIgnored returns the reason why a bundle did not replace the known nodeinfo, or "" if the
// known nodeinfo has all files of the bundle with the same content.
func whyIgnored(dir string, b *infobundle.Bundle) string {
	same := true
	for _, f := range b.Nodeinfo {
		known, err := durable.Read(filepath.Join(dir, "nodeinfo", filepath.FromSlash(f.Name)), int64(len(f.Data)))
		same = same && err == nil && bytes.Equal(known, f.Data)
	}
	if same {
		return ""
	}
	const remedy = "ask its owner for a new one"
	switch old, err := knownDate(dir); {
	case err != nil:
		return err.Error()
	case b.UpdatedAt() == "":
		return fmt.Sprintf("the bundle has no date (%s), so that it can not be compared with the known info, which is kept; %s", infobundle.UpdatedAt, remedy)
	case b.UpdatedAt() < old:
		return fmt.Sprintf("the bundle is dated %s, but the known info is newer, dated %s; if the bundle was made later, %s", b.UpdatedAt(), old, remedy)
	default:
		return fmt.Sprintf("the bundle differs from the known info, but both are dated %s, so that it is not certain which is newer; %s", old, remedy)
	}
}

// replaceNodeinfo replaces old nodeinfo with new. Not every system can replace a directory
// atomically, so replaceNodeinfo only replaces each file atomically. First it removes the files
// and folders that the new nodeinfo does not have. Then it replaces the files; stomp.toml, which
// servers read, is replaced after all others except updated-at.txt, which is replaced last. After
// a crash in between, the date is still the old date, and signing again completes the
// replacement.
func (d *Dir) replaceNodeinfo(dir string, files []infobundle.File) error {
	base := filepath.Join(dir, "nodeinfo")
	rank := func(name string) int {
		switch name {
		case infobundle.UpdatedAt:
			return 2
		case infobundle.StompTOML:
			return 1
		}
		return 0
	}
	// Files are opened by means of os.Root, because a symbolic link could lead this process to
	// another folder.
	below, err := filepath.Rel(d.path, base)
	if err != nil {
		return err
	}
	nodeFolder, err := os.OpenRoot(d.path)
	if err != nil {
		return err
	}
	defer nodeFolder.Close()
	if err := nodeFolder.MkdirAll(below, 0o755); err != nil {
		return err
	}
	folder, err := nodeFolder.OpenRoot(below)
	if err != nil {
		return err
	}
	defer folder.Close()
	if err := removeOthers(folder, files); err != nil {
		return err
	}
	for r := range 3 {
		for _, f := range files {
			if rank(f.Name) != r {
				continue
			}
			if sub := path.Dir(f.Name); sub != "." {
				if err := folder.MkdirAll(sub, 0o755); err != nil {
					return err
				}
			}
			if err := durable.ReplaceIn(folder, f.Name, f.Data, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeOthers removes everything from a folder that is neither one of the files nor a folder
// that contains one of the files. Earlier versions may have unpacked deeper folders than those
// that are allowed today.
func removeOthers(root *os.Root, files []infobundle.File) error {
	keep := make(map[string]bool) // the names to keep; true for a folder
	for _, f := range files {
		folder, _, deep := strings.Cut(f.Name, "/")
		if deep {
			keep[folder] = true
		}
		keep[f.Name] = false
	}
	folders := []string{"."}
	for len(folders) > 0 {
		folder := folders[0]
		folders = folders[1:]
		entries, err := fs.ReadDir(root.FS(), folder)
		if err != nil {
			return err
		}
		for _, e := range entries {
			name := path.Join(folder, e.Name())
			isFolder, wanted := keep[name]
			if wanted && isFolder == e.IsDir() {
				if isFolder {
					folders = append(folders, name)
				}
				continue
			}
			if err := root.RemoveAll(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// addPeer signs the certificate of a new peer, and creates the peer's directory
// atomically as the last step.
func (d *Dir) addPeer(ctx context.Context, dir string, b *infobundle.Bundle, key crypto.Signer) error {
	if err := d.checkPeerLimit(); err != nil {
		return err
	}
	if err := d.checkRequestRecord(b); err != nil {
		return err
	}
	given, err := d.allGrants(ctx)
	if err != nil {
		return err
	}
	subnet, isNew, err := d.reserveSubnet(b.Identity, given)
	if err != nil {
		return err
	}
	cert, err := d.signPeer(key, b, subnet)
	if cert == nil && isNew {
		err = errors.Join(err, d.pool(b.Identity.Type).release(subnet))
	}
	if err != nil {
		return err
	}
	return d.installPeer(dir, b, cert, subnet)
}

// needsRenewal reports whether the certificate that was issued to a known peer is not valid now,
// so that the peer cannot use it. The result is false if the certificate cannot be read, if the
// bundle has another root certificate than the peer, or if the peer is deactivated.
func (d *Dir) needsRenewal(dir string, b *infobundle.Bundle) bool {
	pinned, err := readCert(dir, "root-ca.crt")
	if err != nil || !sameCertificate(pinned, b.Root) {
		return false
	}
	if date, err := d.Deactivated(b.Identity.ID); err != nil || date != "" {
		return false
	}
	cert, err := readCert(dir, "peercert.crt")
	return err == nil && !isValidAt(cert, time.Now())
}

func isValidAt(cert *x509.Certificate, now time.Time) bool {
	return !now.Before(cert.NotBefore) && !now.After(cert.NotAfter)
}

// renewPeer signs a new certificate for a known peer, with the subnet of the earlier one.
func (d *Dir) renewPeer(ctx context.Context, dir string, b *infobundle.Bundle, key crypto.Signer) error {
	if err := d.checkRequestRecord(b); err != nil {
		return err
	}
	old, err := readCert(dir, "peercert.crt")
	if err != nil {
		return err
	}
	subnet := ""
	if d.identity.Type == nodetype.AccountingAuthority {
		if subnet, _, err = pki.SubnetComment(old); err != nil {
			return err
		}
	}
	if err := (&Locked{d: d}).ensureSubnet(ctx, b.Identity, subnet); err != nil {
		return err
	}
	cert, err := d.signPeer(key, b, subnet)
	if err != nil {
		return err
	}
	return durable.Replace(filepath.Join(dir, "peercert.crt"), pki.EncodeCertificatePEM(cert), 0o644)
}

// signPeer signs a peer certificate for the node of a bundle, see sign.
func (d *Dir) signPeer(key crypto.Signer, b *infobundle.Bundle, subnet string) (*x509.Certificate, error) {
	return d.sign(key, func(a *pki.Authority, serial *big.Int) (*x509.Certificate, error) {
		return a.SignPeer(b.Root, subnet, serial, time.Now())
	})
}

// sign makes a certificate with a new serial number, by calling issue, and records it. If issue
// fails, nothing is recorded. If recording fails, sign returns both the certificate and an error.
// The caller must hold the directory's lock. [pki.Authority] checks the key.
func (d *Dir) sign(key crypto.Signer, issue func(a *pki.Authority, serial *big.Int) (*x509.Certificate, error)) (*x509.Certificate, error) {
	cert, err := issue(&pki.Authority{Cert: d.root, Key: key}, randomSerial())
	if err != nil {
		return nil, err
	}
	return cert, d.database().record(cert)
}

// checkRequestRecord compares a peer with the record of the certificates that were signed on this
// machine for requests of another machine. It does not compare subnets, because the recorded
// subnets are among the grants.
func (d *Dir) checkRequestRecord(b *infobundle.Bundle) error {
	record, err := signrecord.Read(d.file(filepath.FromSlash(RequestsFolder), signrecord.Name))
	if err != nil {
		return err
	}
	_, err = record.Compare(signrecord.PeerCertificate(b.Identity, b.Root, "", ""))
	return err
}

// checkPeerLimit checks that the node can have another peer.
func (d *Dir) checkPeerLimit() error {
	if d.identity.Type != nodetype.DebtorsAgent {
		return nil
	}
	ids, err := d.PeerIDs()
	if err == nil && len(ids) > 0 {
		err = fmt.Errorf("a debtors agent has exactly one peer, and this one has %s already", ids[0])
	}
	return err
}
