package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"peerlink/internal/excerpt"
	"peerlink/node/infobundle"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// Peer is the state of one peer, as read from the node's directory at one moment.
type Peer struct {
	Identity    pki.Identity
	Name        string            // given by the node's owner; may be empty
	Root        *x509.Certificate // pinned permanently
	Issued      *x509.Certificate // the peer certificate that this node issued to the peer
	SubCA       *x509.Certificate // the peer certificate received from the peer; nil until registered
	Subnet      string            // hex: given to the peer (at an AA) or received from it (at an agent, once registered)
	Queues      int               // sending queues, 1 to 99
	Active      bool              // the broker objects for the peer exist
	Deactivated string            // date of deactivation, or "unknown date"; empty if not deactivated
	Suspended   *Suspension       // the link is paused; nil if it is not
	Stomp       *StompConfig      // where and how to send to the peer; nil if StompErr is not nil
	StompErr    error             // what is wrong with the peer's stomp.toml
	UpdatedAt   string            // date of the info-bundle that contained stomp.toml; may be empty
	Revoked     RevokedKeys       // server keys that the peer has ever revoked
	RevokedErr  error             // why Revoked is not complete; if not nil, there must be no new link
	NoFollow    bool              // the peer's published info-bundle is not fetched
	// NotRemembered is how many keys are revoked only as long as the peer's newest info-bundle lists
	// them, because [MaxRevokedKeys] others are remembered.
	NotRemembered int
}

// State returns "signed", "registered", "active", "suspended" or "deactivated".
func (p *Peer) State() string {
	switch {
	case p.Deactivated != "":
		return "deactivated"
	case p.SubCA == nil:
		return "signed"
	case p.Suspended != nil:
		return "suspended"
	case !p.Active:
		return "registered"
	default:
		return "active"
	}
}

// maxQueues is the maximum number of sending queues of a peer.
const maxQueues = 99

// PeerIDs returns the sorted node IDs of all peers. It fails with [ErrNotNode] if the
// directory does not exist any more, or is empty, so that a file system which is not
// mounted is not mistaken for a node without peers.
func (d *Dir) PeerIDs() ([]string, error) {
	entries, err := os.ReadDir(d.file("peers"))
	if errors.Is(err, fs.ErrNotExist) {
		if there, err := exists(d.file("root-ca.crt")); err != nil || there {
			return nil, err
		}
		return nil, fmt.Errorf("%s is %w: it has neither root-ca.crt nor peers", d.absPath(), ErrNotNode)
	}
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		// peers/ may contain other files, such as Kustomize files.
		if checkID(e.Name()) == nil && isDir(d.file("peers", e.Name())) {
			ids = append(ids, e.Name())
		}
	}
	sort.Strings(ids)
	return ids, nil
}

// eachPeer iterates over the node IDs of all peers. It ends with an error if they cannot be read,
// or if ctx is done.
func (d *Dir) eachPeer(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		ids, err := d.PeerIDs()
		if err != nil {
			yield("", err)
			return
		}
		for _, id := range ids {
			if err := ctx.Err(); err != nil {
				yield("", err)
				return
			}
			if !yield(id, nil) {
				return
			}
		}
	}
}

// HasPeer reports whether a peer's directory has any of the peer's certificates, or cannot
// be read. When Git removes a peer, it leaves the directory with the untracked
// files, such as ACTIVE. Such a directory is not a peer.
func (d *Dir) HasPeer(id string) bool {
	for _, name := range []string{"root-ca.crt", "peercert.crt", "sub-ca.crt"} {
		if _, err := os.Stat(d.file("peers", id, name)); !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

// Peer reads the state of one peer. It fails with [ErrUnknownPeer] if there is no such
// peer.
func (d *Dir) Peer(id string) (*Peer, error) {
	dir, err := d.peerDir(id)
	if err != nil {
		return nil, err
	}
	p, err := d.readPeer(dir, id)
	if err != nil {
		return nil, fmt.Errorf("peer %s: %w", id, err)
	}
	return p, nil
}

// peerDir returns the path of a peer's directory. It fails with [ErrUnknownPeer] if there is none.
func (d *Dir) peerDir(id string) (string, error) {
	if err := checkID(id); err != nil {
		return "", err
	}
	dir := d.file("peers", id)
	if !isDir(dir) {
		return "", unknownPeerError(id)
	}
	return dir, nil
}

func unknownPeerError(id string) error {
	return fmt.Errorf("%w %s: \"peerlink peer list\" shows those that are known", ErrUnknownPeer, id)
}

func (d *Dir) readPeer(dir, id string) (*Peer, error) {
	p := new(Peer)
	ou, err := readLine(filepath.Join(dir, "nodetype.txt"))
	if err != nil {
		return nil, err
	}
	if p.Identity.Type, err = nodetype.ParseOU(ou); err != nil {
		return nil, fmt.Errorf("nodetype.txt: %w", err)
	}
	p.Identity.ID = id
	p.Name, _ = ReadPeerName(dir) // an invalid name must not hide the peer
	if !d.identity.Type.CanPeer(p.Identity.Type) {
		return nil, fmt.Errorf("nodetype.txt: a peer of type %q is impossible here", p.Identity.Type)
	}
	if p.Root, err = readCert(dir, "root-ca.crt"); err != nil {
		return nil, err
	}
	if got, err := pki.IdentityOf(p.Root.RawSubject); err != nil || got != p.Identity {
		return nil, fmt.Errorf("root-ca.crt is not the certificate of %s", p.Identity)
	}
	if p.Issued, err = readCert(dir, "peercert.crt"); isMissingOrDamaged(err) {
		return nil, fmt.Errorf("%w; if certs/ has a copy, \"peerlink init\" restores it", err)
	} else if err != nil {
		return nil, err
	}
	switch p.SubCA, err = readCert(dir, "sub-ca.crt"); {
	case errors.Is(err, fs.ErrNotExist):
	case isMissingOrDamaged(err):
		return nil, fmt.Errorf("%w; move the file away, and register the certificate again (\"peerlink peer register\"): its issuer has it as peers/%s/peercert.crt", err, d.identity.ID)
	case err != nil:
		return nil, err
	}
	if err := d.readSubnet(p); err != nil {
		return nil, err
	}
	if p.Queues, err = readQueues(dir); err != nil {
		return nil, err
	}
	if p.Active, err = exists(filepath.Join(dir, "ACTIVE")); err != nil {
		return nil, err
	}
	if p.Deactivated, err = d.Deactivated(id); err != nil {
		return nil, err
	}
	if p.Suspended, err = d.Suspended(id); err != nil {
		return nil, err
	}
	if p.NoFollow, err = exists(filepath.Join(dir, noFollowFile)); err != nil {
		return nil, err
	}
	// Whatever is wrong with the nodeinfo, which comes from the peer, must not hide the peer: messages
	// can be received without stomp.toml, and the link with any peer can be ended.
	p.readRevoked(dir)
	data, err := readText(filepath.Join(dir, "nodeinfo", infobundle.StompTOML))
	if err == nil {
		p.Stomp, err = ParseStompTOML(data, d.identity.ID)
	}
	p.StompErr = err
	p.UpdatedAt, _ = knownDate(dir)
	return p, nil
}

// Deactivated returns the date of a peer's deactivation, "unknown date" if no date was
// recorded, or "" if the peer is not deactivated. It does not read the peer's other files, which may be unreadable.
func (d *Dir) Deactivated(id string) (date string, err error) {
	if err := checkID(id); err != nil {
		return "", err
	}
	date, err = readLine(d.file("peers", id, "DEACTIVATED"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err == nil && date == "":
		return "unknown date", nil
	}
	return date, err
}

// readSubnet sets p.Subnet to the subnet that the node and the peer have agreed on, which it
// reads from a file. It fails if the certificate, which both nodes have, contains another
// subnet: with a subnet that was not given to it, a peer could act in the name of another peer.
func (d *Dir) readSubnet(p *Peer) (err error) {
	name, certName := d.subnetFile(p.Identity.ID)
	cert := p.SubCA
	if d.identity.Type == nodetype.AccountingAuthority {
		cert = p.Issued
	}
	p.Subnet, err = readLine(d.file(filepath.FromSlash(name)))
	if cert == nil && errors.Is(err, fs.ErrNotExist) {
		return nil // the file is written at the registration
	}
	if err != nil || cert == nil {
		return err
	}
	want, ok, err := pki.SubnetComment(cert)
	if err == nil && ok && p.Subnet != want {
		err = fmt.Errorf("%s holds %q, but %s has the subnet %s: \"peerlink init\" repairs %s", path.Base(name), excerpt.Of(p.Subnet), certName, want, path.Base(name))
	}
	return err
}

func readCert(dir, name string) (*x509.Certificate, error) {
	data, err := readText(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	cert, err := pki.ParseCertificatePEM(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", name, errDamaged, err)
	}
	return cert, nil
}

func readQueues(dir string) (int, error) {
	s, err := readLine(filepath.Join(dir, "queues.txt"))
	if errors.Is(err, fs.ErrNotExist) {
		return 1, nil // the directory was made by a version without queues.txt
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil || n < 1 || n > maxQueues {
		return 0, fmt.Errorf("queues.txt holds %.20q: expected a number from 1 to %d", s, maxQueues)
	}
	return n, nil
}

// checkID checks that s has the form of a node ID, so that it can be used in a path.
func checkID(s string) error {
	ok := len(s) == 8 || len(s) == 32
	for _, c := range []byte(s) {
		ok = ok && (c >= '0' && c <= '9' || c >= 'a' && c <= 'f')
	}
	if !ok {
		return fmt.Errorf("%q is not a node ID: expected 8 or 32 lowercase hex digits", excerpt.Of(s))
	}
	return nil
}

// IssuedFile returns the path of the peer certificate that this node has issued to a
// peer. The file has to be sent to the peer's operator.
func (d *Dir) IssuedFile(id string) string { return d.file("peers", id, "peercert.crt") }

// IssuedCertificate returns the peer certificate that this node has issued to a peer. It fails with
// [ErrUnknownPeer] if there is no such peer, with [ErrDeactivated], or if the certificate is not valid.
func (d *Dir) IssuedCertificate(id string) (*x509.Certificate, error) {
	dir, err := d.peerDir(id)
	if err != nil {
		return nil, err
	}
	date, err := d.Deactivated(id)
	if err != nil {
		return nil, err
	}
	if date != "" {
		return nil, fmt.Errorf("%w: %s", ErrDeactivated, id)
	}
	cert, err := readCert(dir, "peercert.crt")
	if err == nil && !d.database().hasSigned(cert) {
		err = fmt.Errorf("%s was not signed with this node's root key", d.IssuedFile(id))
	}
	return cert, err
}
