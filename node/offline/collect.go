package offline

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// Requested is one item to be signed by the root key: a [ServerCert], a [PeerCert], a [Replacement] or
// an [InfoBundle].
type Requested interface {
	// add checks the item and adds it to the collection.
	add(ctx context.Context, c *collection) error
}

// ServerCert requests a server certificate for the node itself.
type ServerCert struct {
	CSR  []byte // the server's certificate signing request, in PEM
	Days int    // validity, 1 to 3650
	File string // path of the certificate, written when the answer is filed; must not exist
}

// PeerCert requests the peer certificate for a node that is not a peer yet.
type PeerCert struct {
	Bundle []byte // the node's info-bundle
}

// Replacement requests the peer certificate for a node that takes the place of a peer whose owner has
// lost the root key. The caller must have made sure that both have the same owner.
type Replacement struct {
	Peer       string // node ID of the peer
	Bundle     []byte // the node's info-bundle
	KeepSubnet bool   // an accounting authority gives the node the peer's subnet, and so its accounts
}

// InfoBundle requests the node's own info-bundle, with the current content of the nodeinfo
// folder. A request can have at most one.
type InfoBundle struct {
	File string // path of the info-bundle, written when the answer is filed; must not exist
}

// collection is a request that is being made. Values that are not reserved yet are missing, or
// placeholders.
type collection struct {
	l     *node.Locked
	d     *node.Dir
	now   time.Time
	file  requestFile
	peers []pki.Identity // identities for file.PeerCerts, by index
	date  string         // date of the info-bundle
}

// Collect makes a request with all items. It reserves the subnets and the info-bundle's
// date, and stores the request until its answer is filed or the request is forgotten. If
// an item is not possible, Collect reserves nothing, and returns the joined errors of all
// impossible items.
//
// now is the current time.
func Collect(ctx context.Context, d *node.Dir, items []Requested, now time.Time) (r *Request, err error) {
	return collect(ctx, d, items, now, func() error { return nil })
}

// collect implements [Collect]. It calls step before every change, so that a test can
// interrupt it there.
func collect(ctx context.Context, d *node.Dir, items []Requested, now time.Time, step func() error) (r *Request, err error) {
	if len(items) == 0 || len(items) > maxItems {
		return nil, fmt.Errorf("%d items to be signed: expected 1 to %d in one request", len(items), maxItems)
	}
	if err := d.CheckRootDates(now); err != nil {
		return nil, err
	}
	err = d.Locked(ctx, func(l *node.Locked) error {
		c := &collection{l: l, d: d, now: now}
		if err := c.addAll(ctx, items); err != nil {
			return err
		}
		if r, err = c.store(ctx, step); err != nil {
			return errors.Join(err, l.ReleaseSubnets())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// store reserves what the request needs, and stores the request.
func (c *collection) store(ctx context.Context, step func() error) (*Request, error) {
	if err := c.reserve(ctx, step); err != nil {
		return nil, err
	}
	data, err := encode(&c.file)
	if err != nil {
		return nil, err
	}
	r, err := ReadRequest(data, c.now)
	if err != nil {
		return nil, err
	}
	if err := step(); err != nil {
		return nil, err
	}
	return r, storeWaiting(c.d, r)
}

// addAll adds the items to the request, except for the values that are reserved later, and checks
// the request.
func (c *collection) addAll(ctx context.Context, items []Requested) error {
	id := make([]byte, idDigits/2)
	rand.Read(id)
	self := c.d.Identity()
	c.file = requestFile{
		header:  header{requestFormat, version, hex.EncodeToString(id)},
		Created: formatTime(c.now), NodeType: self.Type.String(), NodeID: self.ID,
	}
	c.file.Root = pki.EncodeCertificatePEM(c.d.Root())
	var errs []error
	for _, item := range items {
		errs = append(errs, item.add(ctx, c))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return c.checkWithPlaceholders()
}

// checkWithPlaceholders assigns the serial numbers, and checks the request in the same way as
// [ReadRequest], with placeholders for the subnets. A request that would be refused must not
// reserve a subnet.
func (c *collection) checkWithPlaceholders() error {
	for i := range c.file.ServerCerts {
		c.file.ServerCerts[i].Serial = pki.SerialHex(c.l.NewSerial())
	}
	placeholders := c.file
	placeholders.PeerCerts = slices.Clone(c.file.PeerCerts)
	used := make(map[string]bool)
	for i := range c.file.PeerCerts {
		c.file.PeerCerts[i].Serial = pki.SerialHex(c.l.NewSerial())
		placeholders.PeerCerts[i].Serial = c.file.PeerCerts[i].Serial
		used[c.file.PeerCerts[i].Subnet] = true // that of a replaced peer
	}
	for i := range placeholders.PeerCerts {
		p := &placeholders.PeerCerts[i]
		for n := 1; p.Subnet == "" && c.d.Identity().Type == nodetype.AccountingAuthority; n++ {
			subnet := fmt.Sprintf("%s%02x", c.d.Identity().ID, n)
			if c.peers[i].Type == nodetype.CreditorsAgent {
				subnet = fmt.Sprintf("%06x", n)
			}
			if !used[subnet] {
				p.Subnet, used[subnet] = subnet, true
			}
		}
	}
	data, err := encode(&placeholders)
	if err != nil {
		return err
	}
	_, err = readRequest(data, c.now)
	return err
}

// reserve reserves the subnets and the date. After a crash, the next attempt gets the same
// subnets.
func (c *collection) reserve(ctx context.Context, step func() error) error {
	for i := range c.file.PeerCerts {
		p := &c.file.PeerCerts[i]
		if p.Replaces != nil && p.Replaces.KeepSubnet {
			continue
		}
		if err := step(); err != nil {
			return err
		}
		var err error
		if p.Subnet, err = c.l.ReserveSubnet(ctx, c.peers[i]); err != nil {
			return err
		}
	}
	if c.date == "" {
		return nil
	}
	if err := step(); err != nil {
		return err
	}
	return c.l.AdvanceDate(c.date)
}

func (a ServerCert) add(_ context.Context, c *collection) error {
	path, err := c.output(a.File)
	if err != nil {
		return err
	}
	var csr *x509.CertificateRequest
	if csr, err = pki.ParseCSRPEM(a.CSR); err == nil {
		err = checkServerCSR(csr, c.d.Identity(), c.d.Root())
	}
	if err == nil {
		err = c.d.CheckNotRevoked(csr.PublicKey)
	}
	if err == nil {
		err = checkDays(a.Days)
	}
	if err != nil {
		return fmt.Errorf("server certificate for %s: %w", a.File, err)
	}
	c.file.ServerCerts = append(c.file.ServerCerts, serverCertFile{CSR: string(pki.EncodeCSRPEM(csr.Raw)), Days: a.Days, File: path})
	return nil
}

func (a PeerCert) add(_ context.Context, c *collection) error {
	b, err := infobundle.Read(a.Bundle, c.now)
	if err != nil {
		return err
	}
	if err := c.l.CheckNewPeer(b); err != nil {
		return fmt.Errorf("%s: %w", b.Identity, err)
	}
	c.file.PeerCerts = append(c.file.PeerCerts, peerCertFile{Bundle: a.Bundle})
	c.peers = append(c.peers, b.Identity)
	return nil
}

func (a Replacement) add(ctx context.Context, c *collection) error {
	b, err := infobundle.Read(a.Bundle, c.now)
	if err != nil {
		return err
	}
	root, subnet, err := c.l.ReplacedPeer(ctx, node.Replacement{Peer: a.Peer, Bundle: b, KeepSubnet: a.KeepSubnet})
	if err != nil {
		return fmt.Errorf("replace %s by %s: %w", a.Peer, b.Identity, err)
	}
	f := peerCertFile{Bundle: a.Bundle, Replaces: &replacedFile{Root: pki.EncodeCertificatePEM(root), KeepSubnet: a.KeepSubnet && subnet != ""}}
	if f.Replaces.KeepSubnet {
		f.Subnet = subnet
	}
	c.file.PeerCerts = append(c.file.PeerCerts, f)
	c.peers = append(c.peers, b.Identity)
	return nil
}

func (a InfoBundle) add(_ context.Context, c *collection) error {
	path, err := c.output(a.File)
	if err != nil {
		return err
	}
	if c.file.InfoBundle != nil {
		return errors.New("two info-bundles are requested: both would be the same")
	}
	files, date, err := c.l.Nodeinfo(c.now)
	if err != nil {
		return err
	}
	if c.file.RootCSR, err = c.rootCSR(); err != nil {
		return err
	}
	c.date = date
	c.file.InfoBundle = &infoBundleFile{File: path}
	for _, f := range files {
		if err := checkPath(f.Name); err != nil {
			return fmt.Errorf("nodeinfo: %w", err)
		}
		c.file.InfoBundle.Nodeinfo = append(c.file.InfoBundle.Nodeinfo, nodeinfoFile(f))
	}
	return nil
}

// rootCSR returns the root key's certificate signing request, in PEM without other text, or nil if there is
// none yet.
func (c *collection) rootCSR() ([]byte, error) {
	data, err := c.l.RootCSR()
	if data == nil || err != nil {
		return nil, err
	}
	csr, err := pki.ParseCSRPEM(data)
	if err != nil {
		return nil, err
	}
	return pki.EncodeCSRPEM(csr.Raw), nil
}

// output checks the path of a file that is created when the answer is filed, and returns the
// absolute path, because the working directory may be different at that time.
func (c *collection) output(file string) (string, error) {
	if err := checkPath(file); err != nil {
		return "", err
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	if err := checkPath(path); err != nil {
		return "", err
	}
	// Many media do not distinguish upper case from lower case.
	taken := c.file.InfoBundle != nil && strings.EqualFold(c.file.InfoBundle.File, path)
	for _, s := range c.file.ServerCerts {
		taken = taken || strings.EqualFold(s.File, path)
	}
	if taken {
		return "", fmt.Errorf("two items are requested for the file %s", path)
	}
	switch _, err := os.Lstat(path); {
	case err == nil:
		return "", fmt.Errorf("%s exists already: choose another name or remove it", path)
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	return path, nil
}
