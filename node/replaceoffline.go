package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// This file has the steps of replacing a peer for a node whose root key is on another machine.

// ReplacedPeer returns, for a request to sign the replacement r, the root certificate of the peer that is
// replaced, and the peer's subnet, or "" if this node is not an accounting authority. It fails if the
// replacement is not possible, or if nothing has to be signed for it.
func (l *Locked) ReplacedPeer(ctx context.Context, r Replacement) (root *x509.Certificate, subnet string, err error) {
	if err := l.d.CheckReplacement(r); err != nil {
		return nil, "", err
	}
	if root, err = l.replacedRoot(r.Peer); err != nil || l.d.identity.Type != nodetype.AccountingAuthority {
		return root, "", err
	}
	if next := r.Bundle.Identity; isDir(l.d.file("peers", next.ID)) {
		return nil, "", fmt.Errorf("%s is a peer already, so that nothing has to be signed: \"peerlink peer deactivate %s\" ends the link with %s", next, r.Peer, r.Peer)
	}
	old, err := l.d.Peer(r.Peer)
	if err == nil && r.KeepSubnet {
		err = l.d.checkTakeover(ctx, r, old.Subnet)
	}
	if err != nil {
		return nil, "", err
	}
	return root, old.Subnet, nil
}

// replacedRoot returns the root certificate of a peer, also if its directory was moved to the folder of
// replaced peers, and no other one has taken its place yet.
func (l *Locked) replacedRoot(id string) (*x509.Certificate, error) {
	dir := l.d.file("peers", id)
	if moved := l.d.replacedDir(id); !isDir(dir) && moved != "" {
		dir = moved
	}
	return readCert(dir, "root-ca.crt")
}

// CheckReplacementFiling checks, before a certificate that was signed elsewhere is recorded, that
// [Locked.FileReplacement] can file it: that the peer is still the one with the root certificate
// replaced, and that the subnet in the certificate is that of the peer if it is kept, or else still
// reserved. CheckReplacementFiling returns [ErrSubnetTaken] if the peer has another subnet
// now, or if the subnet that was reserved for the new node has been given to another one.
//
// done reports whether the replacement was filed before. At an accounting authority it is always false:
// filing the replacement again changes nothing there.
func (l *Locked) CheckReplacementFiling(ctx context.Context, r Replacement, replaced *x509.Certificate, subnet string) (done bool, err error) {
	authority := l.d.identity.Type == nodetype.AccountingAuthority
	root, err := l.replacedRoot(r.Peer)
	if err != nil {
		return false, err
	}
	if !authority && sameCertificate(root, r.Bundle.Root) && isDir(l.d.file("peers", r.Peer)) {
		return true, nil
	}
	if !sameCertificate(root, replaced) {
		return false, fmt.Errorf("%s has another root key than when the request was made, %s: it was replaced meanwhile; if it is to be replaced again, forget the request, and make a new one", r.Peer, pki.Fingerprint(root.PublicKey))
	}
	if err := l.d.CheckReplacement(r); err != nil || !authority {
		return false, err
	}
	if !r.KeepSubnet {
		return false, l.EnsureSubnet(ctx, r.Bundle.Identity, subnet)
	}
	old, err := l.d.Peer(r.Peer)
	if err != nil {
		return false, err
	}
	if old.Subnet != subnet {
		return false, fmt.Errorf("%w: the certificate has the subnet %s, and %s has %s", ErrSubnetTaken, subnet, r.Peer, old.Subnet)
	}
	return false, l.d.checkTakeover(ctx, r, subnet)
}

// FileReplacement replaces a peer as [Dir.ReplacePeer] does, by the node for which cert was signed
// elsewhere and recorded by [Locked.FileCertificate]. subnet is the subnet in cert, or "". The caller
// must have called [Locked.CheckReplacementFiling]. FileReplacement may be interrupted at any moment, and
// called again. If the node has become a peer meanwhile, its earlier peer certificate stays in place, unless cert was
// signed again for the same request, and added is false.
func (l *Locked) FileReplacement(ctx context.Context, r Replacement, cert *x509.Certificate, subnet string) (added bool, err error) {
	if err := errors.Join(l.d.removeLeftovers(), l.d.CheckReplacement(r)); err != nil {
		return false, err
	}
	if l.d.identity.Type != nodetype.AccountingAuthority {
		_, err := l.d.replaceAuthority(r, func() (*x509.Certificate, error) { return cert, nil })
		return err == nil, err
	}
	err = l.d.replaceAgent(ctx, r, func(dir, _ string) error {
		added = true
		return l.d.installPeer(dir, r.Bundle, cert, subnet)
	})
	if err == nil && !added {
		err = replaceIssued(l.d.file("peers", r.Bundle.Identity.ID), cert)
	}
	return added, err
}

// AssignSubnet reserves the subnet of a peer for the node that replaces it, after a certificate for that
// node was signed on this machine. If this machine's copy of the node's directory has a directory of the
// replaced peer, an existing reservation is not changed, because the reference scripts compare the
// reservation with the subnet in the peer's directory.
func (l *Locked) AssignSubnet(replaced string, next pki.Identity, subnet string) error {
	if isDir(l.d.file("peers", replaced)) {
		return l.EnsureReserved(next, subnet)
	}
	return l.d.pool(next.Type).assign(next.ID, subnet)
}
