package node

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"peerlink/internal/durable"
	"peerlink/node/infobundle"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// This file replaces peers whose owners have lost their root keys. There are two cases:
//
//   - The ID of an accounting authority is chosen, so the authority keeps it with a new root key.
//     Its peers, which are agents, pin the new root certificate in place of the earlier one.
//   - The ID of an agent is derived from its root key, so an agent with a new root key has another
//     ID. Its peers, which are accounting authorities, end the link with the earlier agent for good,
//     and may give its subnet to the new one, which then has the same accounts.

// Replacement says which peer [Dir.ReplacePeer] replaces, and how.
type Replacement struct {
	Peer   string             // node ID of the peer that is replaced
	Bundle *infobundle.Bundle // of the node that takes its place
	// KeepSubnet is whether the node gets the subnet of the peer that it replaces, instead of a new
	// one. It has no effect at agents, which give no subnets.
	KeepSubnet bool
}

// ReplaceResult is the result of [Dir.ReplacePeer].
type ReplaceResult struct {
	Peer     *Peer  // the new peer
	CertFile string // the peer certificate, to be sent to the new peer
	// ReplacedDir is the folder into which the directory of the earlier peer was moved. It is "" if that
	// directory stays in its place, because its peer has another ID and is deactivated.
	ReplacedDir string
}

// replacedFolder is the folder of the directories of peers that were replaced. The reference's
// scripts and servers do not read it.
const replacedFolder = "replaced"

// keptFiles are those files of a peer that stay if the peer is replaced by one with the same ID: what
// this node's owner has set. The keys that the peer has revoked do not stay: the earlier root key, which
// may be stolen, has signed their list, and no certificate for the new root key has one of these keys
// unless its owner uses it again. They are remembered with the earlier root key ([Dir.remember]).
var keptFiles = []string{nameFile, noFollowFile, "queues.txt", "kustomization.yaml", "resources-patch.yaml"}

// ReplacePeer replaces a peer whose owner has lost the root key by the node of a verified info-bundle,
// and signs the peer certificate for it. The caller must have made sure that both have the same owner:
// nothing in the bundle proves that.
//
// A peer with the same ID is replaced by moving its directory to the folder "replaced"; there is no traffic with the new
// one until the certificate that it issues is registered. Certificates for the earlier root key are not
// accepted any more. A peer with another ID is deactivated; if the new one keeps its subnet, the messages
// that wait for it go to the new one ([Dir.CurrentSuccessor]), and are answered otherwise. ReplacePeer fails if the peer with the
// same ID is deactivated, which is for good.
//
// ReplacePeer may be interrupted at any moment, and started again. key returns the node's decrypted
// root key.
func (d *Dir) ReplacePeer(ctx context.Context, r Replacement, key func() (crypto.Signer, error)) (*ReplaceResult, error) {
	// key may prompt for a passphrase, so the lock is not held while it is called.
	if err := d.CheckReplacement(r); err != nil {
		return nil, err
	}
	signer, err := key()
	if err != nil {
		return nil, err
	}
	if err := d.CheckKey(signer); err != nil {
		return nil, err
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := errors.Join(d.removeLeftovers(), d.CheckReplacement(r)); err != nil {
		return nil, err
	}
	res := &ReplaceResult{CertFile: d.IssuedFile(r.Bundle.Identity.ID)}
	if err := d.checkRequestRecord(r.Bundle); err != nil {
		return nil, err
	}
	if d.identity.Type == nodetype.AccountingAuthority {
		err = d.replaceAgent(ctx, r, func(dir, subnet string) error {
			if !r.KeepSubnet {
				return d.addPeer(ctx, dir, r.Bundle, signer)
			}
			cert, err := d.signPeer(signer, r.Bundle, subnet)
			if err != nil {
				return err
			}
			return d.installPeer(dir, r.Bundle, cert, subnet)
		})
	} else {
		res.ReplacedDir, err = d.replaceAuthority(r, func() (*x509.Certificate, error) { return d.signPeer(signer, r.Bundle, "") })
	}
	if err != nil {
		return nil, err
	}
	res.Peer, err = d.Peer(r.Bundle.Identity.ID)
	return res, err
}

// CheckReplacement checks whether [Dir.ReplacePeer] can replace a peer.
func (d *Dir) CheckReplacement(r Replacement) error {
	if err := errors.Join(d.checkEligible(r.Bundle), d.CheckRootDates(time.Now()), checkID(r.Peer), d.checkRemembered(r.Bundle)); err != nil {
		return err
	}
	if d.identity.Type == nodetype.AccountingAuthority {
		return d.checkReplacingAgent(r)
	}
	return d.checkReplacingAuthority(r)
}

// checkReplacingAuthority checks that an accounting authority, the peer of this agent, can be replaced.
func (d *Dir) checkReplacingAuthority(r Replacement) error {
	id := r.Bundle.Identity.ID
	switch {
	case id != r.Peer && d.identity.Type == nodetype.DebtorsAgent:
		return fmt.Errorf("the bundle is from %s, another accounting authority than %s: a debtors agent has the IDs of its accounting authority for ever; make a new node for another one", r.Bundle.Identity, r.Peer)
	case id != r.Peer:
		return fmt.Errorf("the bundle is from %s, another accounting authority than %s, with other currencies: make it a peer with \"peerlink peer sign\", and end the link with %s with \"peerlink peer deactivate\" when it is not needed any more", r.Bundle.Identity, r.Peer, r.Peer)
	}
	dir := d.file("peers", r.Peer)
	if !isDir(dir) {
		if d.replacedDir(r.Peer) == "" {
			return unknownPeerError(r.Peer)
		}
		return nil // interrupted between moving one directory away and naming the other
	}
	pinned, err := readCert(dir, "root-ca.crt")
	if err != nil {
		return fmt.Errorf("peer %s: %w", r.Peer, err)
	}
	if sameCertificate(pinned, r.Bundle.Root) {
		return fmt.Errorf("%s is known with exactly this root certificate already, so that there is nothing to replace: \"peerlink peer sign\" takes over its newer info; its peer certificate is %s", r.Bundle.Identity, d.IssuedFile(r.Peer))
	}
	date, err := d.Deactivated(r.Peer)
	if err == nil && date != "" {
		err = fmt.Errorf("%w (%s): the link with %s was ended for good, and its ID can not be used here again; its owner needs a node with another ID", ErrDeactivated, date, r.Peer)
	}
	return err
}

// replaceAuthority replaces an accounting authority by one with the same ID. issue returns the peer
// certificate, which is on record.
func (d *Dir) replaceAuthority(r Replacement, issue func() (*x509.Certificate, error)) (moved string, err error) {
	dir := d.file("peers", r.Peer)
	kept := dir
	if !isDir(dir) {
		moved = d.replacedDir(r.Peer)
		kept = moved
	}
	files, err := keptOf(kept)
	if err != nil {
		return "", err
	}
	cert, err := issue()
	if err != nil {
		return "", err
	}
	tmp, err := d.preparePeer(r.Bundle, cert, "", files)
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := pinRevokedKeys(tmp, r.Bundle); err != nil {
		return "", err
	}
	if moved == "" {
		if err := d.remember(dir); err != nil {
			return "", err
		}
		if moved, err = d.moveToReplaced(r.Peer); err != nil {
			return "", err
		}
	}
	return moved, d.namePeer(tmp, dir)
}

// keptOf returns the keptFiles in the directory of a peer.
func keptOf(dir string) (files []infobundle.File, err error) {
	for _, name := range keptFiles {
		data, err := durable.Read(filepath.Join(dir, name), maxFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files = append(files, infobundle.File{Name: name, Data: data})
	}
	return files, nil
}

// moveToReplaced moves the directory of a peer to the folder of peers that were replaced, under a new name
// that begins with the peer's ID.
func (d *Dir) moveToReplaced(id string) (moved string, err error) {
	if err := os.MkdirAll(d.file(replacedFolder), 0o755); err != nil {
		return "", err
	}
	name := d.file(replacedFolder, id+"-"+time.Now().UTC().Format(time.DateOnly))
	moved = name
	for n := 2; ; n++ {
		if taken, err := exists(moved); err != nil {
			return "", err
		} else if !taken {
			break
		}
		moved = fmt.Sprintf("%s-%d", name, n)
	}
	if err := os.Rename(d.file("peers", id), moved); err != nil {
		return "", err
	}
	return moved, errors.Join(durable.SyncDir(d.file(replacedFolder)), durable.SyncDir(d.file("peers")), durable.SyncDir(d.path))
}

// replacedDir returns the directory that [Dir.moveToReplaced] has moved last for the ID of a peer, or "" if
// there is none.
func (d *Dir) replacedDir(id string) (newest string) {
	paths, _ := filesIn(d.file(replacedFolder), func(name string) bool { return strings.HasPrefix(name, id+"-") })
	var last time.Time
	for _, path := range paths {
		// The time of the last change to a directory is that of the files in it, which does not
		// change when the directory is moved, so the root certificate of the last one is newest.
		fi, err := os.Stat(filepath.Join(path, "root-ca.crt"))
		if err == nil && (newest == "" || fi.ModTime().After(last)) {
			newest, last = path, fi.ModTime()
		}
	}
	return newest
}

// EarlierSubnet returns the subnet that this agent had at a peer which was replaced by one with the same
// ID, or "" if none is known.
func (d *Dir) EarlierSubnet(id string) string {
	if d.identity.Type == nodetype.AccountingAuthority || checkID(id) != nil {
		return ""
	}
	moved := d.replacedDir(id)
	if moved == "" {
		return ""
	}
	cert, err := readCert(moved, "sub-ca.crt")
	if err != nil {
		return ""
	}
	subnet, _, _ := pki.SubnetComment(cert)
	return subnet
}

// checkReplacingAgent checks that an agent, a peer of this accounting authority, can be replaced.
func (d *Dir) checkReplacingAgent(r Replacement) error {
	old, err := d.Peer(r.Peer)
	if err != nil {
		return err
	}
	next := r.Bundle.Identity
	switch {
	case next.ID == r.Peer:
		return fmt.Errorf("the bundle is from %s itself, and its ID follows from its root key, so that it has not lost it: \"peerlink peer sign\" takes over its newer info", next)
	case next.Type != old.Identity.Type:
		return fmt.Errorf("the bundle is from %s: expected one from a node of the type %s, as %s is", next, old.Identity.Type, r.Peer)
	case old.SubCA == nil && d.predecessor(old) == "":
		return fmt.Errorf("%w: there was no link with %s, which could be replaced; \"peerlink peer remove\" removes it, and \"peerlink peer sign\" makes the new node a peer", ErrNotRegistered, r.Peer)
	}
	return d.checkKnownSuccessor(r, old)
}

// checkKnownSuccessor checks that a node which is to take the place of old is no peer yet, unless it
// became one by an earlier run of [Dir.ReplacePeer].
func (d *Dir) checkKnownSuccessor(r Replacement, old *Peer) error {
	next := r.Bundle.Identity
	if !isDir(d.file("peers", next.ID)) {
		return nil
	}
	known, err := d.Peer(next.ID)
	if err != nil {
		return err
	}
	switch {
	case !bytes.Equal(known.Root.RawSubjectPublicKeyInfo, r.Bundle.Root.RawSubjectPublicKeyInfo) || !sameCertificate(known.Root, r.Bundle.Root):
		return otherCertificateError(r.Bundle)
	case known.Deactivated != "":
		return fmt.Errorf("%w (%s): %s can not take the place of another peer", ErrDeactivated, known.Deactivated, next)
	case r.KeepSubnet && known.Subnet != old.Subnet:
		return fmt.Errorf("%s is a peer already, with the subnet %s, which it keeps for ever: it can not get the subnet %s of %s", next, known.Subnet, old.Subnet, r.Peer)
	case !r.KeepSubnet && known.Subnet == old.Subnet:
		return fmt.Errorf("%s is a peer already, with the subnet %s of %s, which it keeps for ever: it can not get another one", next, known.Subnet, r.Peer)
	}
	return nil
}

// replaceAgent replaces an agent by another one, with another ID. The earlier one is deactivated first,
// so that no two nodes have the same subnet at the same time. add makes the new one a peer with the
// directory dir; subnet is that of the earlier one.
func (d *Dir) replaceAgent(ctx context.Context, r Replacement, add func(dir, subnet string) error) error {
	old, err := d.Peer(r.Peer)
	if err != nil {
		return err
	}
	if r.KeepSubnet {
		if err := d.checkTakeover(ctx, r, old.Subnet); err != nil {
			return err
		}
	}
	// The successor is recorded before, because nothing that waits may be answered in the name of the
	// earlier peer for accounts that another node has.
	if r.KeepSubnet {
		err = d.setSuccessor(r.Peer, r.Bundle.Identity.ID)
	} else {
		err = d.removeSuccessor(r.Peer)
	}
	if err != nil {
		return err
	}
	if _, err := d.markDeactivated(r.Peer); err != nil {
		return err
	}
	if dir := d.file("peers", r.Bundle.Identity.ID); !isDir(dir) {
		if err := add(dir, old.Subnet); err != nil {
			return err
		}
	}
	if !r.KeepSubnet {
		return nil
	}
	// Last, because the reference's init releases the reservation of a subnet that the peer named in
	// it does not have.
	return d.pool(old.Identity.Type).assign(r.Bundle.Identity.ID, old.Subnet)
}

// checkTakeover checks that the node of a bundle can get the subnet of the peer that it replaces: that
// no third node has it, and that the node has no certificate with another one.
func (d *Dir) checkTakeover(ctx context.Context, r Replacement, subnet string) error {
	given, err := d.allGrants(ctx)
	if err != nil {
		return err
	}
	next := r.Bundle.Identity
	third := func(g grant) bool { return g.peerID != r.Peer && g.peerID != next.ID && !d.isDeactivated(g.peerID) }
	if other, taken := given.find(subnet, third); taken {
		return d.takenError(r.Peer, subnet, other)
	}
	certificates := given.certificatesOf(next.ID)
	for _, s := range slices.Sorted(maps.Keys(certificates)) {
		if s != subnet {
			return fmt.Errorf("%s has a certificate with the subnet %s already (%s), and keeps it for ever: it can not get the subnet %s of %s", next, s, certificates[s].file, subnet, r.Peer)
		}
	}
	return nil
}

// assign makes a reservation that of another peer.
func (p pool) assign(peerID, subnet string) error {
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	return durable.Replace(p.path(subnet), []byte(peerID+"\n"), 0o644)
}
