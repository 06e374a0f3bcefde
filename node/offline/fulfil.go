package offline

import (
	"context"
	"crypto"
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
	"peerlink/node/signrecord"
)

// Fulfil signs all items of the request with the root key. Before it is called, an operator
// should have accepted [Request.Summary]. now is the time of this machine, which determines the dates of the
// certificates.
//
// Fulfil fails with [node.ErrWrongKey] if the request is for another root key. If a request is
// fulfilled twice, the two answers have the same serial numbers. Only one of them can be
// filed; the other should be deleted.
func Fulfil(r *Request, key crypto.Signer, now time.Time) (*Answer, error) {
	if pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(r.root.PublicKey) {
		return nil, fmt.Errorf("%w: the request is for %s, whose root key has the fingerprint %s", node.ErrWrongKey, r.Node, pki.Fingerprint(r.root.PublicKey))
	}
	if err := r.checkClock(now); err != nil {
		return nil, err
	}
	if err := r.checkRevoked(nil); err != nil {
		return nil, err
	}
	authority := &pki.Authority{Cert: r.root, Key: key}
	f := answerFile{header: header{answerFormat, version, r.ID}, Request: r.hash()}
	for _, s := range r.servers {
		cert, err := authority.SignServer(s.csr, s.serial, now, s.validity())
		if err != nil {
			return nil, err
		}
		f.ServerCerts = append(f.ServerCerts, string(pki.EncodeCertificatePEM(cert)))
	}
	for _, p := range r.peers {
		cert, err := authority.SignPeer(p.bundle.Root, p.subnet, p.serial, now)
		if err != nil {
			return nil, err
		}
		f.PeerCerts = append(f.PeerCerts, string(pki.EncodeCertificatePEM(cert)))
	}
	if r.info != nil {
		if r.needsCSR() {
			der, err := pki.NewCSR(r.Node, key, pki.RootCSR)
			if err != nil {
				return nil, err
			}
			f.RootCSR = string(pki.EncodeCSRPEM(der))
		}
		var err error
		if f.Nodeinfo, f.Signature, err = infobundle.Sign(r.info.files, key); err != nil {
			return nil, err
		}
	}
	data, err := encode(&f)
	if err != nil {
		return nil, err
	}
	a, err := ReadAnswer(data)
	if err != nil {
		return nil, err
	}
	// Check the answer here in the same way as the online machine does.
	return a, r.match(a, now)
}

// CheckConflicts checks the request for conflicts with what this machine knows: with d, which is a
// copy of the node's directory, perhaps an old one, and with the record of the certificates that
// were signed here ([Request.RecordSigned]). It fails if a serial number was used before, a peer
// is known with another root certificate, a subnet belongs to another peer, or a server key has been
// revoked. In these cases the
// online machine's records are damaged or were manipulated. A certificate that is requested again
// exactly as it was signed is no error.
func (r *Request) CheckConflicts(ctx context.Context, d *node.Dir) error {
	switch {
	case r.Node != d.Identity():
		return fmt.Errorf("the request is for %s, but %s is the directory of %s", r.Node, d.Path(), d.Identity())
	case !r.root.Equal(d.Root()):
		return fmt.Errorf("the request is for %s with another root certificate than that in %s", r.Node, d.Path())
	}
	var errs []error
	checkSerial := func(serial string) {
		if _, err := os.Lstat(filepath.Join(d.Path(), "certs", serial+".pem")); err == nil {
			errs = append(errs, fmt.Errorf("the serial number %s was used before: certs has a certificate with it; unless the answer to this request was filed, forget it on the online machine (\"peerlink request forget\"), and make a new one (\"peerlink request new\"), which has other serial numbers", serial))
		} else if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	for _, s := range r.servers {
		checkSerial(pki.SerialHex(s.serial))
	}
	errs = append(errs, r.checkRevoked(d))
	var held *node.HeldSubnets
	if r.Node.Type == nodetype.AccountingAuthority && len(r.peers) > 0 {
		var err error
		if held, err = d.HeldSubnets(ctx); err != nil {
			errs, held = append(errs, err), nil
		}
	}
	for _, p := range r.peers {
		checkSerial(pki.SerialHex(p.serial))
		errs = append(errs, checkPeerRoot(d, p))
		if held != nil && p.replaces != nil && p.replaces.keepSubnet {
			errs = append(errs, held.CheckTakeover(p.replaces.id, p.bundle.Identity, p.subnet))
		} else if held != nil {
			if err := held.Check(p.bundle.Identity, p.subnet); err != nil {
				errs = append(errs, fmt.Errorf("%w; if the file in parentheses is a certificate, copy it into the folder certs of the online machine's directory, forget the request there (\"peerlink request forget\"), and make a new one, which has another subnet", err))
			}
		}
	}
	record, err := signrecord.Read(signRecordPath(d))
	errs = append(errs, err)
	for _, c := range r.certificates() {
		_, err := record.Compare(c)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// checkRevoked returns an error if the requested list of revoked keys is not valid, or if a requested server certificate is for a key that has been revoked: in
// d, unless d is nil, in the info-bundle that was last signed there, or in the requested one.
func (r *Request) checkRevoked(d *node.Dir) error {
	if err := r.checkRevokedList(); err != nil {
		return err
	}
	revoked := r.revokes()
	if d != nil && len(r.servers) > 0 {
		here, err := d.RevokedKeys()
		if err != nil {
			return err
		}
		last, err := lastSigned(d, time.Now())
		if err != nil {
			return err
		}
		revoked = revoked.With(here)
		if last != nil {
			revoked = revoked.With(last.revokes())
		}
	}
	var errs []error
	for _, s := range r.servers {
		errs = append(errs, revoked.Check(s.csr.PublicKey))
	}
	return errors.Join(errs...)
}

// checkRevokedList returns an error if the list of revoked keys in the requested info-bundle is not valid: peers would not
// refuse the key that a line was meant for.
func (r *Request) checkRevokedList() error {
	if r.info == nil {
		return nil
	}
	return node.CheckRevokedIn(&infobundle.Bundle{Nodeinfo: r.info.files})
}

// revokes returns the keys that the requested info-bundle revokes.
func (r *Request) revokes() node.RevokedKeys {
	if r.info == nil {
		return nil
	}
	return node.RevokedIn(&infobundle.Bundle{Nodeinfo: r.info.files})
}

// checkPeerRoot checks that the peer of a requested certificate is not in d, or is there with the
// same root certificate. The peer may be in d already if d was copied after the request was made.
func checkPeerRoot(d *node.Dir, p peerCert) error {
	known, err := d.Peer(p.bundle.Identity.ID)
	switch {
	case errors.Is(err, node.ErrUnknownPeer):
		return nil
	case err != nil:
		return err
	case p.replaces != nil && p.replaces.id == p.bundle.Identity.ID:
		return nil // the operator is shown both root keys
	case !known.Root.Equal(p.bundle.Root):
		return fmt.Errorf("%s is known here with another root certificate (%s): signing a second one in the same name would be a break-in",
			p.bundle.Identity, pki.Fingerprint(known.Root.PublicKey))
	}
	return nil
}
