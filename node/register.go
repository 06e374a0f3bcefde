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
// with the same certificate, RegisterPeer changes nothing and returns already = true. Another
// certificate replaces the registered certificate only if the latter is not valid now.
func (d *Dir) RegisterPeer(ctx context.Context, certPEM []byte) (p *Peer, already bool, err error) {
	cert, issuer, err := parseReceived(certPEM)
	if err != nil {
		return nil, false, err
	}
	return d.registerPeer(ctx, cert, issuer)
}

// RegisterPeerFrom does the same as [Dir.RegisterPeer], and fails if the certificate was not issued by the
// given peer: whoever has offered the certificate must not decide which other peers are registered.
func (d *Dir) RegisterPeerFrom(ctx context.Context, from pki.Identity, certPEM []byte) (p *Peer, already bool, err error) {
	cert, issuer, err := parseReceived(certPEM)
	if err != nil {
		return nil, false, err
	}
	if issuer != from {
		return nil, false, fmt.Errorf("the certificate was issued by %s, and not registered: expected one that was issued by %s; ask its owner for it", issuer, from)
	}
	return d.registerPeer(ctx, cert, issuer)
}

func parseReceived(certPEM []byte) (cert *x509.Certificate, issuer pki.Identity, err error) {
	if cert, err = pki.ParseCertificatePEM(certPEM); err != nil {
		return nil, issuer, err
	}
	if issuer, err = pki.IdentityOf(cert.RawIssuer); err != nil {
		return nil, issuer, fmt.Errorf("the certificate's issuer is not a Swaptacular node: %w", err)
	}
	return cert, issuer, nil
}

func (d *Dir) registerPeer(ctx context.Context, cert *x509.Certificate, issuer pki.Identity) (p *Peer, already bool, err error) {
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
	if p.SubCA != nil && sameCertificate(p.SubCA, cert) {
		return p, true, nil
	}
	if p.SubCA != nil && isValidAt(p.SubCA, time.Now()) {
		return nil, false, d.alreadyRegisteredError(p, cert)
	}
	if p.Deactivated != "" {
		return nil, false, fmt.Errorf("peer %s has been deactivated (%s), which is for good", issuer.ID, p.Deactivated)
	}
	if now := time.Now(); now.Before(cert.NotBefore) {
		return nil, false, fmt.Errorf("the certificate is valid only from %s on, and here it is %s: set this machine's clock if it is wrong; if it is right, the clock of the machine that signed the certificate was ahead: ask the owner of %s to sign this node's info-bundle again, with the right time, and to send the new certificate",
			cert.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), issuer.ID)
	}
	subnet, err := d.checkReceived(cert, p)
	if err != nil {
		return nil, false, err
	}
	if p.SubCA != nil && subnet != p.Subnet {
		return nil, false, fmt.Errorf("peer %s is registered already, with the subnet %s, and this certificate says %s: ask its owner for a certificate with the same subnet", issuer.ID, p.Subnet, subnet)
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
	// Text beside the PEM block is not copied, which could be control characters for a terminal.
	if err := durable.Replace(filepath.Join(dir, "sub-ca.crt"), pki.EncodeCertificatePEM(cert), 0o644); err != nil {
		return nil, false, err
	}
	p, err = d.Peer(issuer.ID)
	return p, false, err
}

// alreadyRegisteredError returns the error for a certificate from a peer that is registered
// already with another certificate, which is valid.
func (d *Dir) alreadyRegisteredError(p *Peer, cert *x509.Certificate) error {
	err := fmt.Errorf("peer %s is registered already, with another certificate", p.Identity.ID)
	subnet, checkErr := d.checkReceived(cert, p)
	switch {
	case checkErr != nil:
		return fmt.Errorf("%w, which is kept; the new certificate is refused: %w", err, checkErr)
	case d.identity.Type != nodetype.AccountingAuthority && subnet != p.Subnet:
		return fmt.Errorf("%w, which is kept, with the subnet %s: the new certificate says %s, but a node keeps its subnet for ever; send %s to the owner of the peer, who has to remove this node there, put that file into the folder certs, and sign this node's info-bundle again",
			err, p.Subnet, subnet, d.file("peers", p.Identity.ID, "sub-ca.crt"))
	}
	return fmt.Errorf("%w, which is still in use: it is valid, and the peer accepts it as well as the new certificate; nothing needs to be done", err)
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
// date. It returns false if the peer was deactivated already. It works whatever the peer's files hold.
func (d *Dir) DeactivatePeer(ctx context.Context, id string) (changed bool, err error) {
	unlock, err := d.lock(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	if err := d.checkRegistered(id, "deactivated"); err != nil {
		return false, err
	}
	if err := d.removeSuccessor(id); err != nil {
		return false, err
	}
	return d.markDeactivated(id)
}

// checkRegistered returns an error unless there is a peer with a registered certificate. It does not
// read the peer's files. done is what can not be done otherwise.
func (d *Dir) checkRegistered(id, done string) error {
	dir, err := d.peerDir(id)
	if err != nil {
		return err
	}
	registered, err := exists(filepath.Join(dir, "sub-ca.crt"))
	if err == nil && !registered {
		err = fmt.Errorf("%w: there is no link with %s that could be %s", ErrNotRegistered, id, done)
	}
	return err
}

// markDeactivated marks a peer as deactivated, with today's date. It returns false if the peer was
// deactivated already. The caller must hold the directory's lock.
func (d *Dir) markDeactivated(id string) (changed bool, err error) {
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
	if err := checkSafeForSuperuser(d.path); err != nil {
		return err
	}
	err := durable.Create(d.file("peers", id, "ACTIVE"), nil, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}
