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
	"time"

	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// Ask is something that waits for the root key: a [ServerCert], a [PeerCert] or
// an [InfoBundle].
type Ask interface {
	// add checks the ask and makes it a part of the collection.
	add(c *collection) error
}

// ServerCert asks for a server certificate for the node itself.
type ServerCert struct {
	CSR  []byte // the server's certificate signing request, in PEM
	Days int    // validity, 1 to [MaxDays]
	File string // where the certificate goes in the end; must not exist
}

// PeerCert asks for the peer certificate of a node that is no peer yet.
type PeerCert struct {
	Bundle []byte // the node's info-bundle
}

// InfoBundle asks for the node's own info-bundle, with what its nodeinfo folder
// holds now. A request can have one.
type InfoBundle struct {
	File string // where the info-bundle goes in the end; must not exist
}

// collection is a request in the making, with what is still to be reserved
// missing from it.
type collection struct {
	l     *node.Locked
	d     *node.Dir
	now   time.Time
	file  requestFile
	peers []pki.Identity // of file.PeerCerts
	date  string         // of the info-bundle
}

// Collect makes a request of everything asked for. It reserves subnets
// and the info-bundle's date, and remembers the request until it is
// filed or forgotten. If anything asked for is not possible, nothing is
// reserved; the errors say what, for each ask.
//
// now is the present time.
func Collect(ctx context.Context, d *node.Dir, asks []Ask, now time.Time) (r *Request, err error) {
	return collect(ctx, d, asks, now, func() error { return nil })
}

// collect calls step before every change, so that a test can stop it there.
func collect(ctx context.Context, d *node.Dir, asks []Ask, now time.Time, step func() error) (r *Request, err error) {
	if len(asks) == 0 || len(asks) > MaxItems {
		return nil, fmt.Errorf("%d things to be signed: expected 1 to %d in one request", len(asks), MaxItems)
	}
	err = d.Locked(ctx, func(l *node.Locked) error {
		c := &collection{l: l, d: d, now: now}
		if err := c.check(asks); err != nil {
			return err
		}
		if err := c.reserve(step); err != nil {
			return err
		}
		data, err := encode(&c.file)
		if err != nil {
			return err
		}
		if r, err = ReadRequest(data, now); err != nil {
			return err
		}
		if err := step(); err != nil {
			return err
		}
		return remember(d, r)
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// check puts the request together, except for what is still to be reserved.
func (c *collection) check(asks []Ask) error {
	id := make([]byte, idDigits/2)
	rand.Read(id)
	self := c.d.Identity()
	c.file = requestFile{
		header:  header{requestFormat, version, hex.EncodeToString(id)},
		Created: formatTime(c.now), NodeType: self.Type.String(), NodeID: self.ID,
	}
	var err error
	if c.file.Root, err = c.l.RootPEM(); err != nil {
		return err
	}
	if c.file.RootCSR, err = c.l.RootCSR(); err != nil {
		return err
	}
	var errs []error
	for _, ask := range asks {
		errs = append(errs, ask.add(c))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return c.rehearse()
}

// rehearse has the request checked like any other, with subnets that stand for
// those still to come: what would be refused must not cost one.
func (c *collection) rehearse() error {
	for i := range c.file.ServerCerts {
		c.file.ServerCerts[i].Serial = serialHex(c.l.NewSerial())
	}
	for i := range c.file.PeerCerts {
		p := &c.file.PeerCerts[i]
		p.Serial = serialHex(c.l.NewSerial())
		switch {
		case c.d.Identity().Type != nodetype.AccountingAuthority:
		case c.peers[i].Type == nodetype.CreditorsAgent:
			p.Subnet = fmt.Sprintf("%06x", i)
		default:
			p.Subnet = fmt.Sprintf("%s%02x", c.d.Identity().ID, i)
		}
	}
	data, err := encode(&c.file)
	if err != nil {
		return err
	}
	_, err = readRequest(data, c.now)
	return err
}

// reserve takes what nobody else may get. After a failure the peer gets the same
// subnet next time.
func (c *collection) reserve(step func() error) error {
	for i := range c.file.PeerCerts {
		p := &c.file.PeerCerts[i]
		if err := step(); err != nil {
			return err
		}
		var err error
		if p.Subnet, err = c.l.ReserveSubnet(c.peers[i]); err != nil {
			return err
		}
	}
	if c.date == "" {
		return nil
	}
	if err := step(); err != nil {
		return err
	}
	return c.l.HoldDate(c.date)
}

func (a ServerCert) add(c *collection) error {
	path, err := c.output(a.File)
	if err != nil {
		return err
	}
	var csr *x509.CertificateRequest
	if csr, err = pki.ParseCSRPEM(a.CSR); err == nil {
		err = checkServerCSR(csr, c.d.Identity(), c.d.Root())
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

func (a PeerCert) add(c *collection) error {
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

func (a InfoBundle) add(c *collection) error {
	path, err := c.output(a.File)
	if err != nil {
		return err
	}
	if c.file.InfoBundle != nil {
		return errors.New("a second info-bundle is asked for: both would be the same")
	}
	files, date, err := c.l.Nodeinfo(c.now)
	if err != nil {
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

// output checks a file that is to be made when the answer is filed, and makes
// its name absolute: that may happen in another working directory.
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
	taken := c.file.InfoBundle != nil && c.file.InfoBundle.File == path
	for _, s := range c.file.ServerCerts {
		taken = taken || s.File == path
	}
	if taken {
		return "", fmt.Errorf("%s is asked for twice", path)
	}
	switch _, err := os.Lstat(path); {
	case err == nil:
		return "", fmt.Errorf("%s exists already: choose another name or remove it", path)
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	return path, nil
}
