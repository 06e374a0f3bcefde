package node

import (
	"context"
	"fmt"
	"os"
	"slices"

	"peerlink/internal/durable"
	"peerlink/node/nodetype"
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
// another root certificate is pinned for the same ID later, none with the earlier key. The server keys
// that the node has revoked, and the date of its info-bundle, are remembered.
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
	removed := &RemovedPeer{Identity: p.Identity, Name: p.Name, Serial: pki.SerialHex(p.Issued.SerialNumber)}
	if removed.Subnet, err = d.keepRecord(p); err != nil {
		return nil, err
	}
	if err := d.remember(d.file("peers", id)); err != nil {
		return nil, err
	}
	return removed, d.discardPeerDir(id)
}

// CheckRemovable checks that [Dir.RemovePeer] can remove a peer: that there was never a link with it, nor
// with one whose place it has taken ([Dir.ReplacePeer]).
func (d *Dir) CheckRemovable(p *Peer) error {
	id := p.Identity.ID
	switch {
	case p.SubCA != nil:
		return fmt.Errorf("peer %s is registered: expected one that was signed only; \"peerlink peer deactivate\" ends the link for good, \"peerlink peer suspend\" pauses it, and \"peerlink peer replace\" is for an owner who has lost the root key", id)
	case p.Deactivated != "":
		return fmt.Errorf("%w (%s): %s stays on record, so that it never becomes a peer again", ErrDeactivated, p.Deactivated, id)
	case p.Active:
		return fmt.Errorf("peer %s has been active (it has the file ACTIVE), so that messages may wait for it, but its sub-ca.crt is missing: restore that file from a backup, or register the certificate again", id)
	}
	if moved := d.replacedDir(id); moved != "" {
		return fmt.Errorf("peer %s has taken the place of an earlier one with the same ID (%s), for which messages may wait: if it has the wrong root key, \"peerlink peer replace %s BUNDLE.zip\" replaces it by the right one, also by the earlier one; until its certificate is registered there is no traffic", id, moved, id)
	}
	if earlier := d.predecessor(p); earlier != "" {
		return fmt.Errorf("peer %s has the subnet %s, and so the accounts, of %s, whose place it has taken, and nobody else could get them if it were removed: if it is the wrong node, \"peerlink peer replace %s BUNDLE.zip --subnet keep\" gives them to the right one", id, p.Subnet, earlier, id)
	}
	return nil
}

// predecessor returns the ID of a deactivated peer which has the same subnet as p, because p has taken
// its place ([Dir.ReplacePeer]). It returns "" if there is none.
func (d *Dir) predecessor(p *Peer) string {
	ids, err := d.PeerIDs()
	if err != nil || p.Subnet == "" || d.identity.Type != nodetype.AccountingAuthority {
		return ""
	}
	for _, id := range ids {
		if id == p.Identity.ID || !d.isDeactivated(id) {
			continue
		}
		given, _, err := d.peerGrants(id)
		if err == nil && slices.ContainsFunc(given, func(g grant) bool { return g.subnet == p.Subnet }) {
			return id
		}
	}
	return ""
}

// takenError returns the error for the subnet of a peer that can not be handed over, because a third
// node has it by another grant. After an earlier replacement, that node can be replaced in turn.
func (d *Dir) takenError(id, subnet string, other grant) error {
	remedy := "\"peerlink check\" says what to do"
	if third := other.peerID; third != "" && other.subnet == subnet && d.isDeactivated(id) {
		remedy = fmt.Sprintf("\"peerlink peer replace %s BUNDLE.zip --subnet keep\" takes it from %s, if that was the wrong node", other.owner(), other.owner())
		if !isDir(d.file("peers", third)) {
			remedy = fmt.Sprintf("if that was the wrong node, make it a peer again, with its info-bundle (\"peerlink peer sign\"), and then %s", remedy)
		}
	}
	return fmt.Errorf("the subnet %s of %s, or one that overlaps with it, belongs to %s too (%s): %s", subnet, id, other.owner(), other.file, remedy)
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
