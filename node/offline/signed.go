package offline

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"peerlink/internal/durable"
	"peerlink/internal/excerpt"
	"peerlink/node"
	"peerlink/node/pki"
)

// The names of the records of what was signed, in [node.RequestsFolder] of the offline
// machine's copy of the directory.
const (
	// signedInfoFile is the last request with an info-bundle.
	signedInfoFile = "last-signed"
	// signedCertsFile has a line of JSON, a [signedCert], for each certificate.
	signedCertsFile = "signed-certificates"
)

// maxSignedCerts is the maximum size of signedCertsFile in bytes. A line has about 400.
const maxSignedCerts = 8 << 20

// signedCert is the record of a certificate that was signed on this machine.
type signedCert struct {
	Time    string `json:"time"`    // RFC 3339, UTC
	Request string `json:"request"` // the request's ID
	certified
}

// certified is the content of a certificate as far as it is compared with later requests.
type certified struct {
	Kind        Kind   `json:"kind"`
	NodeType    string `json:"node_type"`
	NodeID      string `json:"node_id"`
	Fingerprint string `json:"fingerprint"`           // of the certified key
	Root        string `json:"root_sha256,omitempty"` // of a peer's root certificate, in hex
	Subnet      string `json:"subnet,omitempty"`
	Days        int    `json:"days,omitempty"`
	Serial      string `json:"serial"`
}

// certificates returns the requested certificates.
func (r *Request) certificates() []certified {
	var all []certified
	for _, s := range r.servers {
		all = append(all, certified{
			Kind: KindServerCert, NodeType: r.Node.Type.String(), NodeID: r.Node.ID,
			Fingerprint: pki.Fingerprint(s.csr.PublicKey), Days: s.days, Serial: serialHex(s.serial),
		})
	}
	for _, p := range r.peers {
		all = append(all, certified{
			Kind: KindPeerCert, NodeType: p.bundle.Identity.Type.String(), NodeID: p.bundle.Identity.ID,
			Fingerprint: pki.Fingerprint(p.bundle.Root.PublicKey), Root: sha256Hex(p.bundle.Root.Raw),
			Subnet: p.subnet, Serial: serialHex(p.serial),
		})
	}
	return all
}

// Remember records a signed request in this machine's copy of the node's directory, for
// comparing later requests with it ([Request.CheckKnown], [Request.Changes]). It fails if
// the request contradicts what another process has recorded meanwhile. The answer should be
// given away only after Remember has succeeded. now is the time of signing.
func (r *Request) Remember(ctx context.Context, d *node.Dir, now time.Time) error {
	return d.Locked(ctx, func(*node.Locked) error {
		if err := os.MkdirAll(folder(d), 0o755); err != nil {
			return err
		}
		if err := r.rememberCerts(d, now); err != nil {
			return err
		}
		if r.info == nil {
			return nil
		}
		return durable.Replace(filepath.Join(folder(d), signedInfoFile), r.raw, 0o644)
	})
}

func (r *Request) rememberCerts(d *node.Dir, now time.Time) error {
	path := filepath.Join(folder(d), signedCertsFile)
	known, data, err := signedCerts(d)
	if err != nil {
		return err
	}
	old := len(data)
	var errs []error
	for _, c := range r.certificates() {
		there, err := known.compare(c)
		if errs = append(errs, err); there {
			continue
		}
		line, err := json.Marshal(signedCert{formatTime(now), r.ID, c})
		if err != nil {
			return err
		}
		data = append(append(data, line...), '\n')
	}
	if err := errors.Join(errs...); err != nil || len(data) == old {
		return err
	}
	if len(data) > maxSignedCerts {
		return fmt.Errorf("%s has %d bytes, and no place for more than %d: move it away, and keep it; later requests are not compared with it then", path, old, maxSignedCerts)
	}
	return durable.Replace(path, data, 0o644)
}

// signedBefore are the certificates that were signed on this machine.
type signedBefore []signedCert

// signedCerts returns the records in d, and the content of their file.
func signedCerts(d *node.Dir) (signedBefore, []byte, error) {
	path := filepath.Join(folder(d), signedCertsFile)
	data, err := durable.Read(path, maxSignedCerts)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	var all signedBefore
	if err == nil {
		all, err = parseSignedCerts(data)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("the record of what was signed on this machine can not be used: %w; restore %s from a backup, or if you know why, remove it: later requests are not compared with it then", err, path)
	}
	return all, data, nil
}

func parseSignedCerts(data []byte) (signedBefore, error) {
	var all signedBefore
	n := 0
	for line := range bytes.Lines(data) {
		n++
		c, err := parseSignedCert(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		all = append(all, c)
	}
	return all, nil
}

// parseSignedCert parses a line, which must be as [Request.Remember] writes it.
func parseSignedCert(line []byte) (signedCert, error) {
	var c signedCert
	if err := json.Unmarshal(line, &c); err != nil {
		return c, errors.New(excerpt.Limit(err.Error(), maxJSONError))
	}
	if again, err := json.Marshal(c); err != nil || !bytes.Equal(append(again, '\n'), line) {
		return c, errors.New("it was changed since it was written, or was written by a later version of peerlink")
	}
	if _, err := parseSerial(c.Serial); err != nil {
		return c, err
	}
	if _, err := time.Parse(time.RFC3339, c.Time); err != nil || !isHex(c.Request, idDigits) || c.Kind != KindServerCert && c.Kind != KindPeerCert {
		return c, errors.New("expected a time, the ID of a request, and the kind of a certificate")
	}
	return c, nil
}

// compare returns an error if a requested certificate contradicts one that was signed
// before: the same serial number in another certificate, another root certificate in the
// name of the same peer, or the same subnet for another peer. there reports whether exactly
// the same was requested and signed before.
func (s signedBefore) compare(c certified) (there bool, err error) {
	var errs []error
	for i, old := range s {
		refuse := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("%s, which was signed here on %s for the request %.8s (line %d of %s/%s; remove the line only if that certificate was given to nobody)",
				fmt.Sprintf(format, args...), old.Time, old.Request, i+1, node.RequestsFolder, signedCertsFile))
		}
		switch {
		case old.certified == c:
			return true, nil
		case old.Serial == c.Serial:
			refuse("the serial number %s was used before, for the %s of %s %s with the key %s", c.Serial, old.Kind, old.NodeType, old.NodeID, old.Fingerprint)
		}
		if old.Kind != KindPeerCert || c.Kind != KindPeerCert {
			continue
		}
		if old.NodeID == c.NodeID && (old.NodeType != c.NodeType || old.Root != c.Root) {
			refuse("%s %s is known here with another root certificate: signing a second one (%s) in the same name would be a break-in; expected the %s with the key %s", c.NodeType, c.NodeID, c.Fingerprint, old.NodeType, old.Fingerprint)
		}
		if c.Subnet != "" && old.Subnet == c.Subnet && old.NodeID != c.NodeID {
			refuse("subnet %s is asked for %s %s, but is in the certificate of %s %s", c.Subnet, c.NodeType, c.NodeID, old.NodeType, old.NodeID)
		}
	}
	return false, errors.Join(errs...)
}

// checkSigned compares the request with the certificates that were signed on this machine.
func (r *Request) checkSigned(d *node.Dir) error {
	known, _, err := signedCerts(d)
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range r.certificates() {
		_, err := known.compare(c)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
