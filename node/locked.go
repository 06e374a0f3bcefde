package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"peerlink/internal/durable"
	"peerlink/internal/excerpt"
	"peerlink/node/infobundle"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// RequestsFolder is the folder, relative to the node's directory, in which package
// offline keeps the requests that wait for a signature, each in a file <ID>.json. The
// reference scripts do not read it.
const RequestsFolder = "db/offline"

// LastSigned is the file, relative to the node's directory, in which package offline keeps the
// last request with an info-bundle that was signed on this machine.
const LastSigned = RequestsFolder + "/last-signed"

// maxRequest is the maximum size, in bytes, of a file in RequestsFolder.
const maxRequest = 64 << 20

// Locked is a node's directory of which the caller holds the lock, so that no other
// peerlink command changes it. Its methods are for a node whose root key is on another
// machine. They are the steps of signing that need no root key: they reserve subnets, and
// later record what was signed. A Locked must not be used after the function passed to
// [Dir.Locked] has returned.
type Locked struct {
	d        *Dir
	grants   grants       // including the reservations that ReserveSubnet has made; nil until ReserveSubnet is called
	reserved []string     // files of the reservations that ReserveSubnet has made
	held     *HeldSubnets // nil until FilePeer or EnsureSubnet needs it
}

// Locked calls do while it holds the directory's lock.
func (d *Dir) Locked(ctx context.Context, do func(l *Locked) error) error {
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return do(&Locked{d: d})
}

// NewSerial returns a random, and therefore unique, certificate serial number.
func (l *Locked) NewSerial() *big.Int { return randomSerial() }

// CheckNewPeer checks that the node of a verified info-bundle can become a peer,
// and is not a peer yet.
func (l *Locked) CheckNewPeer(b *infobundle.Bundle) error {
	if err := l.d.checkEligible(b); err != nil {
		return err
	}
	if dir := l.d.file("peers", b.Identity.ID); isDir(dir) {
		if err := checkPinnedRoot(dir, b); err != nil {
			return err
		}
		if l.d.needsRenewal(dir, b) {
			return fmt.Errorf("%s is known already, with a certificate that is not valid now: if this machine's clock is right, sign its info-bundle on the machine with the root key (\"peerlink peer sign\"), or remove %s and ask for a new certificate, which has the same subnet", b.Identity, dir)
		}
		return fmt.Errorf("%s is known already: taking over its newer info needs no root key (\"peerlink peer sign\")", b.Identity)
	}
	return errors.Join(l.d.checkPeerLimit(), l.d.checkRemembered(b))
}

// ReserveSubnet reserves a subnet for a new peer, or returns the subnet that the peer has
// had before. If this node is not an accounting authority, ReserveSubnet returns "".
func (l *Locked) ReserveSubnet(ctx context.Context, peer pki.Identity) (subnet string, err error) {
	if l.grants == nil {
		if l.grants, err = l.d.allGrants(ctx); err != nil {
			return "", err
		}
	}
	subnet, isNew, err := l.d.reserveSubnet(peer, l.grants)
	if err != nil || subnet == "" {
		return "", err
	}
	l.grants[subnet] = append(l.grants[subnet], grant{subnet: subnet, peerID: peer.ID})
	if isNew {
		l.reserved = append(l.reserved, l.d.pool(peer.Type).path(subnet))
	}
	return subnet, nil
}

// ReleaseSubnets releases the subnets that ReserveSubnet has reserved, but not those that
// the peers have had before. The caller must not have promised them to anybody.
func (l *Locked) ReleaseSubnets() error {
	var errs []error
	for _, path := range l.reserved {
		errs = append(errs, os.Remove(path))
	}
	l.reserved, l.grants = nil, nil
	return errors.Join(errs...)
}

// EnsureReserved reserves the subnet in a certificate that was signed on this machine for the
// request of another machine, unless it is reserved already. The reference scripts regard a
// subnet as free if it is not reserved. subnet is "" if this node is not an accounting authority.
func (l *Locked) EnsureReserved(peer pki.Identity, subnet string) error {
	if subnet == "" {
		return nil
	}
	return l.d.pool(peer.Type).ensureReserved(peer.ID, subnet)
}

// ErrSubnetTaken means that the subnet in a new certificate of a peer can not be used: since it
// was reserved, it has been given to another node, or the peer has got another subnet.
var ErrSubnetTaken = errors.New("the subnet is taken")

// EnsureSubnet ensures that the subnet in a certificate for a new peer is still reserved for the
// peer. If it fails with [ErrSubnetTaken], the certificate should not be recorded, because it
// must not be given to anybody. For a node that is a peer already, EnsureSubnet does nothing.
func (l *Locked) EnsureSubnet(ctx context.Context, peer pki.Identity, subnet string) error {
	if isDir(l.d.file("peers", peer.ID)) {
		return nil
	}
	return l.ensureSubnet(ctx, peer, subnet)
}

// ensureSubnet ensures that a subnet which was reserved for the peer earlier is still
// reserved. The reference's init releases debtors subnets that no peer has. ensureSubnet
// reserves such a subnet again, unless it fails with [ErrSubnetTaken].
func (l *Locked) ensureSubnet(ctx context.Context, peer pki.Identity, subnet string) error {
	if l.d.identity.Type != nodetype.AccountingAuthority {
		return nil
	}
	pool := l.d.pool(peer.Type)
	if !pool.contains(subnet) {
		return fmt.Errorf("%q is not a subnet that this node gives to a %s", excerpt.Of(subnet), peer.Type)
	}
	// The subnets are read only once for all peers in an answer, whose subnets all differ from
	// each other.
	if l.held == nil {
		held, err := l.d.HeldSubnets(ctx)
		if err != nil {
			return err
		}
		l.held = held
	}
	if err := l.held.Check(peer, subnet); err != nil {
		return fmt.Errorf("%w: %w", ErrSubnetTaken, err)
	}
	owner, err := readLine(pool.path(subnet))
	if err == nil && owner != peer.ID {
		return fmt.Errorf("%w: %s was reserved for %s, but has been given to %s meanwhile", ErrSubnetTaken, subnet, peer.ID, excerpt.Of(owner))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return durable.Create(pool.path(subnet), []byte(peer.ID+"\n"), 0o644)
}

// Nodeinfo returns the files of a new info-bundle, which are the files of the nodeinfo
// folder and updated-at.txt, and the bundle's date. It does not record the date
// ([Locked.AdvanceDate] does).
func (l *Locked) Nodeinfo(now time.Time) (files []infobundle.File, date string, err error) {
	return l.d.datedNodeinfo(now)
}

// AdvanceDate writes the date of a bundle to nodeinfo/updated-at.txt, unless the date there is
// the same or later, so that the next bundle gets a later date.
func (l *Locked) AdvanceDate(date string) error {
	data, err := readText(l.d.file("nodeinfo", infobundle.UpdatedAt))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if date <= infobundle.DateOf(data) {
		return nil
	}
	return l.d.writeDate(date)
}

// RootPEM returns the content of root-ca.crt. It is not re-encoded, because tools
// compare root certificates byte by byte.
func (l *Locked) RootPEM() ([]byte, error) { return readText(l.d.file("root-ca.crt")) }

// RootCSR returns the content of db/root-ca.csr, or nil if the file is missing or damaged.
func (l *Locked) RootCSR() ([]byte, error) {
	data, err := l.d.readRootCSR()
	if isMissingOrDamaged(err) {
		return nil, nil
	}
	return data, err
}

// FileRootCSR writes the root key's certificate signing request, in PEM, to
// db/root-ca.csr. If the file exists and is not damaged, FileRootCSR leaves it as it is and
// returns false.
func (l *Locked) FileRootCSR(pem []byte) (created bool, err error) {
	_, err = l.d.readRootCSR()
	if !isMissingOrDamaged(err) {
		return false, err
	}
	_, err = l.d.restoreFile(rootCSRFile, pem, err, "the answer")
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	return err == nil, err
}

// RootCSRPath returns the path of db/root-ca.csr, the root key's certificate signing
// request.
func (l *Locked) RootCSRPath() string { return l.d.file(filepath.FromSlash(rootCSRFile)) }

// FileCertificate records a certificate that was signed elsewhere with the node's
// root key: it writes a copy to certs/, and adds a line to db/index. Recording a
// certificate again changes nothing. One that was signed again for the same request ([pki.SignedAgain]) takes
// the place of the earlier one. FileCertificate fails if another certificate with the same serial number is recorded.
func (l *Locked) FileCertificate(cert *x509.Certificate) error {
	if err := l.d.root.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		return fmt.Errorf("the certificate was not signed with this node's root key: %w", err)
	}
	known, err := readCert(l.d.file("certs"), pki.SerialHex(cert.SerialNumber)+".pem")
	if err == nil && !pki.SignedAgain(known, cert) {
		return fmt.Errorf("another certificate with the serial number %s is filed already in %s", pki.SerialHex(cert.SerialNumber), l.d.file("certs"))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return l.d.database().record(cert)
}

// FilePeer makes the node of a verified info-bundle a peer. cert is the peer
// certificate, which was signed elsewhere and recorded by [Locked.FileCertificate].
// subnet is the subnet in cert, or "" if this node is not an accounting authority. The
// caller must have checked that cert was issued to this peer.
//
// If the node has become a peer by other means meanwhile, FilePeer leaves the earlier
// peer certificate in place, unless cert was signed again for the same request, replaces older nodeinfo, and returns false.
func (l *Locked) FilePeer(ctx context.Context, b *infobundle.Bundle, cert *x509.Certificate, subnet string) (added bool, err error) {
	if err := l.d.checkEligible(b); err != nil {
		return false, err
	}
	if err := l.d.removeLeftovers(); err != nil {
		return false, err
	}
	dir := l.d.file("peers", b.Identity.ID)
	if isDir(dir) {
		_, err := l.d.updatePeer(dir, b, true)
		return false, errors.Join(err, replaceIssued(dir, cert))
	}
	if err := l.d.checkPeerLimit(); err != nil {
		return false, err
	}
	if err := l.ensureSubnet(ctx, b.Identity, subnet); err != nil {
		return false, err
	}
	return true, l.d.installPeer(dir, b, cert, subnet)
}

// replaceIssued replaces the certificate in a peer's directory by cert, if that was signed again for the same request.
func replaceIssued(dir string, cert *x509.Certificate) error {
	known, err := readCert(dir, "peercert.crt")
	if err != nil || sameCertificate(known, cert) || !pki.SignedAgain(known, cert) {
		return nil
	}
	return durable.Replace(filepath.Join(dir, "peercert.crt"), pki.EncodeCertificatePEM(cert), 0o644)
}
