package node

import (
	"context"
	"fmt"
	"os"

	"peerlink/internal/durable"
	"peerlink/node/pki"
)

// RemovedPeer describes a peer that [Dir.RemovePeer] has removed.
type RemovedPeer struct {
	Identity pki.Identity
	Name     string // given by the node's owner; may be empty
	Serial   string // of the peer certificate that was issued to it, in hex
	Subnet   string // stays reserved for the node; "" unless this node is an accounting authority
}

// RemovePeer removes a peer that was signed, but not registered, for example by mistake.
//
// The certificate that the peer was given can not be taken back. Its record in db/index and certs/
// stays, and so does the reservation of the subnet in it: signing the same node again gives it the
// same subnet. Without the peer's directory, no connection with the certificate is accepted, and if
// another root certificate is pinned for the same ID later, none with the earlier key.
func (d *Dir) RemovePeer(ctx context.Context, id string) (*RemovedPeer, error) {
	unlock, err := d.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := d.removeLeftovers(); err != nil {
		return nil, err
	}
	p, err := d.Peer(id)
	if err != nil {
		return nil, err
	}
	if err := d.CheckRemovable(p); err != nil {
		return nil, err
	}
	removed := &RemovedPeer{Identity: p.Identity, Name: p.Name, Serial: serialHex(p.Issued.SerialNumber)}
	if removed.Subnet, err = d.keepRecord(p); err != nil {
		return nil, err
	}
	return removed, d.discardPeerDir(id)
}

// CheckRemovable checks that [Dir.RemovePeer] can remove a peer: that there was never a link with it.
func (d *Dir) CheckRemovable(p *Peer) error {
	id := p.Identity.ID
	switch {
	case p.SubCA != nil:
		return fmt.Errorf("peer %s is registered: expected one that was signed only; \"peerlink peer deactivate\" ends the link for good, \"peerlink peer suspend\" pauses it, and \"peerlink peer replace\" is for an owner who has lost the root key", id)
	case p.Active:
		return fmt.Errorf("peer %s has been active (it has the file ACTIVE), so that messages may wait for it, but its sub-ca.crt is missing: restore that file from a backup, or register the certificate again", id)
	}
	return nil
}

// keepRecord ensures that what was signed for a peer stays on record without the peer's directory:
// the certificate, and the reservation of the subnet in it, which it returns.
func (d *Dir) keepRecord(p *Peer) (subnet string, err error) {
	if db := d.database(); db.hasSigned(p.Issued) {
		if err := db.record(p.Issued); err != nil {
			return "", err
		}
	}
	subnet, given, err := pki.SubnetComment(p.Issued)
	if err != nil || !given {
		return "", err
	}
	pool := d.pool(p.Identity.Type)
	return subnet, pool.ensureReserved(p.Identity.ID, subnet)
}

// discardPeerDir removes a peer's directory, which disappears atomically.
func (d *Dir) discardPeerDir(id string) error {
	discarded := d.file("peers", newPeerPrefix+"removed-"+id) // removeLeftovers removes it after a crash
	if err := os.Rename(d.file("peers", id), discarded); err != nil {
		return err
	}
	if err := durable.SyncDir(d.file("peers")); err != nil {
		return err
	}
	return os.RemoveAll(discarded)
}
