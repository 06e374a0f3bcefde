package node

import (
	"context"
	"crypto/x509"
	"encoding/json"
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
	"peerlink/node/infobundle"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// RequestsFolder is where, relative to the node's directory, package offline
// keeps the requests that are away for signing, one file named <ID>.json for
// each. The reference scripts do not look at it.
const RequestsFolder = "db/offline"

// maxRequest bounds one file in RequestsFolder.
const maxRequest = 64 << 20

// Locked is a node's directory while no other peerlink command works on it.
// Its methods are the steps of signing that need no root key, for when the key
// is on another machine: first subnets are reserved, later what was signed is
// filed. Use it only within [Dir.Locked].
type Locked struct{ d *Dir }

// Locked calls do while keeping other peerlink commands off the directory.
func (d *Dir) Locked(ctx context.Context, do func(l *Locked) error) error {
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return do(&Locked{d})
}

// NewSerial makes a certificate serial number that no other certificate has.
func (l *Locked) NewSerial() *big.Int { return randomSerial() }

// CheckNewPeer checks that the node of a checked info-bundle can become a peer,
// and is none yet.
func (l *Locked) CheckNewPeer(b *infobundle.Bundle) error {
	if err := l.d.checkNewPeer(b); err != nil {
		return err
	}
	if isDir(l.d.file("peers", b.Identity.ID)) {
		return fmt.Errorf("%s is known already: taking over its newer info needs no root key (\"peerlink peer sign\")", b.Identity)
	}
	return l.d.checkRoom()
}

// ReserveSubnet reserves a subnet for a new peer, or finds the one that is
// reserved for it already. Only accounting authorities give subnets; others
// get "".
func (l *Locked) ReserveSubnet(peer pki.Identity) (subnet string, err error) {
	if l.d.identity.Type != nodetype.AccountingAuthority {
		return "", nil
	}
	pool := l.d.pool(peer.Type)
	subnet, found, err := pool.reserved(peer.ID)
	if err != nil || found {
		return subnet, err
	}
	return pool.reserve(peer.ID)
}

// holdSubnet makes certain that a subnet which was reserved for the peer some
// time ago still is. The reference's init releases a debtors subnet as long as
// no peer has it; it is taken again here, unless somebody else was faster.
func (l *Locked) holdSubnet(ctx context.Context, peer pki.Identity, subnet string) error {
	if l.d.identity.Type != nodetype.AccountingAuthority {
		return nil
	}
	pool := l.d.pool(peer.Type)
	if !pool.owns(subnet) {
		return fmt.Errorf("%q is not a subnet that this node gives to a %s", excerpt.Of(subnet), peer.Type)
	}
	owner, err := readLine(pool.path(subnet))
	if err == nil && owner != peer.ID {
		return fmt.Errorf("subnet %s was reserved for %s, but has been given to %s meanwhile: sign a new certificate for the former", subnet, peer.ID, excerpt.Of(owner))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	given, err := l.d.usedSubnets(ctx)
	if err != nil {
		return err
	}
	if given[subnet] {
		return fmt.Errorf("subnet %s was reserved for %s, but another peer has it now: sign a new certificate for the former", subnet, peer.ID)
	}
	return durable.Create(pool.path(subnet), []byte(peer.ID+"\n"), 0o644)
}

// Nodeinfo returns what goes into a new info-bundle: the files of the nodeinfo
// folder, and updated-at.txt with the date that the bundle gets. Nothing records
// that date before [Locked.HoldDate] does.
func (l *Locked) Nodeinfo(now time.Time) (files []infobundle.File, date string, err error) {
	return l.d.datedNodeinfo(now)
}

// HoldDate makes certain that nodeinfo/updated-at.txt is not behind the date of
// a bundle, so that no later bundle gets that date, or an earlier one.
func (l *Locked) HoldDate(date string) error {
	data, err := readText(l.d.file("nodeinfo", infobundle.UpdatedAt))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if date <= infobundle.DateOf(data) {
		return nil
	}
	return l.d.writeDate(date)
}

// RootPEM is the content of root-ca.crt, which tools compare byte by byte.
func (l *Locked) RootPEM() ([]byte, error) { return readText(l.d.file("root-ca.crt")) }

// RootCSR is the content of db/root-ca.csr, nil if it has not been needed yet.
func (l *Locked) RootCSR() ([]byte, error) {
	data, err := readText(l.RootCSRFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// FileRootCSR files the root key's certificate signing request, in PEM. If there
// is one already, that one stays, and FileRootCSR returns false.
func (l *Locked) FileRootCSR(pem []byte) (created bool, err error) {
	err = durable.Create(l.RootCSRFile(), pem, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	return err == nil, err
}

// RootCSRFile is the file of the root key's certificate signing request.
func (l *Locked) RootCSRFile() string { return l.d.file("db", "root-ca.csr") }

// FileCertificate records a certificate that was signed elsewhere with the
// node's root key: a copy in certs/, a line in db/index. Doing it again changes
// nothing. Another certificate under the same serial number is refused.
func (l *Locked) FileCertificate(cert *x509.Certificate) error {
	if err := l.d.root.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		return fmt.Errorf("the certificate was not signed with this node's root key: %w", err)
	}
	known, err := readCert(l.d.file("certs"), serialHex(cert.SerialNumber)+".pem")
	if err == nil && !sameCertificate(known, cert) {
		return fmt.Errorf("another certificate with the serial number %s is filed already in %s", serialHex(cert.SerialNumber), l.d.file("certs"))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return l.d.record(cert)
}

// FilePeer makes the node of a checked info-bundle a peer, with a certificate
// that was signed elsewhere and filed by [Locked.FileCertificate], and that
// gives the subnet ("" where this node is no accounting authority). The caller
// has checked that the certificate is the peer's.
//
// If the node became a peer by other means meanwhile, the certificate that it
// was given then stays, newer info is taken over, and FilePeer returns false.
func (l *Locked) FilePeer(ctx context.Context, b *infobundle.Bundle, cert *x509.Certificate, subnet string) (added bool, err error) {
	if err := l.d.checkNewPeer(b); err != nil {
		return false, err
	}
	if err := l.d.sweep(); err != nil {
		return false, err
	}
	dir := l.d.file("peers", b.Identity.ID)
	if isDir(dir) {
		_, err := l.d.updatePeer(dir, b, true)
		return false, err
	}
	if err := l.d.checkRoom(); err != nil {
		return false, err
	}
	if err := l.holdSubnet(ctx, b.Identity, subnet); err != nil {
		return false, err
	}
	return true, l.d.installPeer(dir, b, cert, subnet)
}

// promisedSubnets collects the subnets in requests that are away for signing.
// Nothing else in a request concerns the directory before it comes back.
func (d *Dir) promisedSubnets() (map[string]bool, error) {
	promised := make(map[string]bool)
	folder := d.file(filepath.FromSlash(RequestsFolder))
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || filepath.Ext(e.Name()) != ".json" {
			continue
		}
		path := filepath.Join(folder, e.Name())
		data, err := durable.Read(path, maxRequest)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var r struct {
			PeerCerts []struct {
				Subnet string `json:"subnet"`
			} `json:"peer_certs"`
		}
		if err := json.Unmarshal(data, &r); err != nil {
			return nil, fmt.Errorf("%s: not a request: %w", path, err)
		}
		for _, p := range r.PeerCerts {
			if p.Subnet != "" {
				promised[p.Subnet] = true
			}
		}
	}
	return promised, nil
}
