package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"peerlink/internal/durable"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// RegisterPeer checks the peer certificate that a peer has issued to this node, and
// stores it as sub-ca.crt ("Becoming peers", step 4). If the peer is registered already
// with the same certificate, RegisterPeer changes nothing and returns already = true.
func (d *Dir) RegisterPeer(ctx context.Context, certPEM []byte) (p *Peer, already bool, err error) {
	cert, err := pki.ParseCertificatePEM(certPEM)
	if err != nil {
		return nil, false, err
	}
	issuer, err := pki.IdentityOf(cert.RawIssuer)
	if err != nil {
		return nil, false, fmt.Errorf("the certificate's issuer is not a Swaptacular node: %w", err)
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return nil, false, err
	}
	defer unlock()
	if p, err = d.Peer(issuer.ID); err != nil {
		if errors.Is(err, ErrUnknownPeer) {
			err = fmt.Errorf("%w: the certificate was issued by %s, which is not known here; ask its owner for an info-bundle and sign that first (peerlink peer sign)", ErrUnknownPeer, issuer)
		}
		return nil, false, err
	}
	if p.SubCA != nil {
		if sameCertificate(p.SubCA, cert) {
			return p, true, nil
		}
		return nil, false, fmt.Errorf("peer %s is registered already, with another certificate", issuer.ID)
	}
	if p.Deactivated != "" {
		return nil, false, fmt.Errorf("peer %s has been deactivated (%s), which is for good", issuer.ID, p.Deactivated)
	}
	subnet, err := d.checkReceived(cert, p)
	if err != nil {
		return nil, false, err
	}
	dir := d.file("peers", issuer.ID)
	switch d.identity.Type {
	case nodetype.CreditorsAgent:
		err = durable.Replace(filepath.Join(dir, "masq-subnet.txt"), []byte(subnet+"\n"), 0o644)
	case nodetype.DebtorsAgent:
		err = durable.Replace(d.file("debtors-subnet.txt"), []byte(subnet+"\n"), 0o644)
	}
	if err != nil {
		return nil, false, err
	}
	// sub-ca.crt comes last: its presence means "registered".
	if err := durable.Replace(filepath.Join(dir, "sub-ca.crt"), certPEM, 0o644); err != nil {
		return nil, false, err
	}
	p, err = d.Peer(issuer.ID)
	return p, false, err
}

// checkReceived checks a peer certificate that p has issued to this node, and returns
// the subnet in it, which is "" unless p is an accounting authority.
func (d *Dir) checkReceived(cert *x509.Certificate, p *Peer) (subnet string, err error) {
	if subnet, err = pki.CheckPeer(cert, p.Root, d.root, time.Now()); err != nil {
		return "", err
	}
	if d.identity.Type != nodetype.CreditorsAgent {
		return subnet, nil
	}
	own, err := d.CreditorsSubnet()
	if err != nil {
		return "", err
	}
	if len(own) != len(subnet) {
		return "", fmt.Errorf("the certificate names the subnet %s: expected %d hex digits, as in creditors-subnet.txt", subnet, len(own))
	}
	return subnet, nil
}

// DeactivatePeer permanently marks a registered peer as deactivated, with today's
// date. It returns false if the peer was deactivated already.
func (d *Dir) DeactivatePeer(ctx context.Context, id string) (changed bool, err error) {
	unlock, err := d.lock(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	p, err := d.Peer(id)
	if err != nil {
		return false, err
	}
	if p.SubCA == nil {
		return false, fmt.Errorf("%w: there is no link with %s that could be deactivated", ErrNotRegistered, id)
	}
	if p.Deactivated != "" {
		return false, nil
	}
	path := d.file("peers", id, "DEACTIVATED")
	err = durable.Create(path, []byte(time.Now().Format(time.DateOnly)+"\n"), 0o644)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		// If the disk is full, create an empty file, which needs no space: the
		// deactivation is more important than its date.
		if durable.CreateEmpty(path, 0o644) == nil {
			err = nil
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	return err == nil, err
}

// SetQueues sets the number of sending queues of a registered peer. The number can
// only be increased, up to 99: the messages in a removed queue would be lost.
func (d *Dir) SetQueues(ctx context.Context, id string, n int) error {
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	p, err := d.Peer(id)
	if err != nil {
		return err
	}
	if p.SubCA == nil {
		return fmt.Errorf("%w: register the certificate of %s first", ErrNotRegistered, id)
	}
	if n < p.Queues || n > maxQueues {
		return fmt.Errorf("%d is not a possible number of queues for %s: it has %d, which may only grow, up to %d", n, id, p.Queues, maxQueues)
	}
	return durable.Replace(d.file("peers", id, "queues.txt"), fmt.Appendf(nil, "%d\n", n), 0o644)
}

// MarkActive records that the broker objects for a peer exist, so that messages can be
// exchanged with it.
func (d *Dir) MarkActive(id string) error {
	err := durable.Create(d.file("peers", id, "ACTIVE"), nil, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}
