// Package signrecord reads and writes the record of the certificates that were signed on an
// offline machine. A certificate that was signed there for a request is filed on the online
// machine only. On the offline machine, this record shows what was signed; besides it, only the
// subnet of a peer certificate is reserved in the node's directory.
//
// The record is a text file with one line of JSON, an [Entry], for each certificate. Byte order
// marks and line ends of Windows are accepted.
package signrecord

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"peerlink/internal/durable"
	"peerlink/internal/excerpt"
	"peerlink/internal/textfile"
	"peerlink/node/pki"
)

// Name is the name of the record's file.
const Name = "signed-certificates"

// maxSize is the maximum size of the file in bytes. A line has about 400.
const maxSize = 8 << 20

// maxJSONError is the maximum length, in bytes, of the text of an error of encoding/json.
const maxJSONError = 200

// requestDigits is the number of hex digits of the ID of a request.
const requestDigits = 32

// The kinds of certificates.
const (
	ServerCert = "server-certificate"
	PeerCert   = "peer-certificate"
)

// Entry is the record of one certificate.
type Entry struct {
	Time    string `json:"time"`    // of signing, in the form of RFC 3339, UTC
	Request string `json:"request"` // ID of the request
	Certificate
}

// Certificate has the properties of a certificate that [Record.Compare] compares.
type Certificate struct {
	Kind        string `json:"kind"`
	NodeType    string `json:"node_type"`
	NodeID      string `json:"node_id"`
	Fingerprint string `json:"fingerprint"`           // [pki.Fingerprint] of the certified key
	Root        string `json:"root_sha256,omitempty"` // of a peer's root certificate, in hex
	Subnet      string `json:"subnet,omitempty"`      // given to a peer by an accounting authority
	Days        int    `json:"days,omitempty"`        // validity of a server certificate
	Serial      string `json:"serial"`                // in upper-case hex
	// Replaces is the ID of the peer whose place the node takes: an accounting authority with the same
	// ID and another root key, or an agent that gets the subnet of another one.
	Replaces string `json:"replaces,omitempty"`
}

// Record is the content of the file, in the order of signing.
type Record []Entry

// Read reads the record in a file. It returns an empty Record if the file does not exist. An empty
// file is an error, because [Add] never writes one.
func Read(path string) (Record, error) {
	r, _, err := read(path)
	return r, err
}

func read(path string) (Record, []byte, error) {
	data, err := textfile.Read(path, maxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	var r Record
	if err == nil {
		data = textfile.WithoutCR(data)
		r, err = parse(data)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("the record of what was signed on this machine can not be used: %w; restore %s from a backup, or, if you know the cause, remove it: certificates are not compared with it then", err, path)
	}
	return r, data, nil
}

func parse(data []byte) (Record, error) {
	if len(data) == 0 {
		return nil, errors.New("it is empty: expected a line for each certificate")
	}
	var r Record
	n := 0
	for line := range bytes.Lines(data) {
		n++
		e, err := parseEntry(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		r = append(r, e)
	}
	return r, nil
}

// parseEntry parses a line, which must be as [Add] writes it.
func parseEntry(line []byte) (Entry, error) {
	var e Entry
	if err := json.Unmarshal(line, &e); err != nil {
		return e, errors.New(excerpt.Limit(err.Error(), maxJSONError))
	}
	if encoded, err := json.Marshal(e); err != nil || !bytes.Equal(append(encoded, '\n'), line) {
		return e, errors.New("it was changed since it was written, or was written by a later version of peerlink")
	}
	if len(e.Serial)%2 != 0 || len(e.Serial) > 40 || !isHex(e.Serial, "0123456789ABCDEF") {
		return e, fmt.Errorf("serial number %q: expected up to 20 bytes in upper-case hex", excerpt.Of(e.Serial))
	}
	if _, err := time.Parse(time.RFC3339, e.Time); err != nil || len(e.Request) != requestDigits || !isHex(e.Request, "0123456789abcdef") || e.Kind != ServerCert && e.Kind != PeerCert {
		return e, errors.New("expected a time, the ID of a request, and the kind of a certificate")
	}
	return e, nil
}

func isHex(s, digits string) bool { return s != "" && strings.Trim(s, digits) == "" }

// Add adds certificates that were signed for a request to the record in a file. Certificates that
// are recorded already are not added again. Add fails, and changes nothing, if a certificate
// contradicts the record.
func Add(path string, now time.Time, request string, certs []Certificate) error {
	r, data, err := read(path)
	if err != nil {
		return err
	}
	oldSize := len(data)
	var errs []error
	for _, c := range certs {
		recorded, err := r.Compare(c)
		if errs = append(errs, err); recorded {
			continue
		}
		line, err := json.Marshal(Entry{now.UTC().Truncate(time.Second).Format(time.RFC3339), request, c})
		if err != nil {
			return err
		}
		data = append(append(data, line...), '\n')
	}
	if err := errors.Join(errs...); err != nil || len(data) == oldSize {
		return err
	}
	if len(data) > maxSize {
		return fmt.Errorf("%s has %d bytes, and at most %d are allowed with the new lines: move the file away, and keep it; certificates are not compared with it then", path, oldSize, maxSize)
	}
	return durable.Replace(path, data, 0o644)
}

// LastPeer returns the entry of the peer certificate that was signed last for the node with the given ID, or
// nil if there is none.
func (r Record) LastPeer(id string) *Entry {
	for i := len(r) - 1; i >= 0; i-- {
		if r[i].Kind == PeerCert && r[i].NodeID == id {
			return &r[i]
		}
	}
	return nil
}

// Current reports whether an entry is that of a node whose place no other node has taken since.
func (r Record) Current(i int) bool {
	return !slices.ContainsFunc(r[i+1:], func(later Entry) bool { return later.takesPlaceOf(r[i].Certificate) })
}

// takesPlaceOf reports whether the node with a certificate takes the place of the one with another
// certificate.
func (c Certificate) takesPlaceOf(old Certificate) bool {
	return c.Kind == PeerCert && old.Kind == PeerCert && c.Replaces == old.NodeID && (c.NodeID == old.NodeID && c.Root != old.Root || c.NodeID != old.NodeID && c.Subnet == old.Subnet)
}

// Compare returns an error if a certificate to be signed contradicts one that was signed
// before: the same serial number in another certificate, another root certificate or another
// subnet for the same peer, or the same subnet for another peer. The root certificate and the subnet of
// a node whose place another node has taken, or takes by this certificate, do not contradict it. recorded reports whether
// exactly the same certificate is in the record; then there is no error.
func (r Record) Compare(c Certificate) (recorded bool, err error) {
	var errs []error
	for i, old := range r {
		contradicts := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("%s, which was signed here on %s for the request %.8s (line %d of db/offline/%s; remove the line only if that certificate was given to nobody)",
				fmt.Sprintf(format, args...), old.Time, old.Request, i+1, Name))
		}
		switch {
		case old.Certificate == c:
			return true, nil
		case old.Serial == c.Serial:
			errs = append(errs, fmt.Errorf("the serial number %s was used before, for the %s of %s %s with the key %s, which was signed here on %s for the request %.8s (line %d of db/offline/%s): "+
				"this request or the earlier one was changed on its way here; forget the request on the online machine (\"peerlink request forget\"), and make a new one (\"peerlink request new\"), which has other serial numbers",
				c.Serial, old.Kind, old.NodeType, old.NodeID, old.Fingerprint, old.Time, old.Request, i+1, Name))
		}
		if old.Kind != PeerCert || c.Kind != PeerCert || c.takesPlaceOf(old.Certificate) || !r.Current(i) {
			continue
		}
		if old.NodeID == c.NodeID && (old.NodeType != c.NodeType || old.Root != c.Root) {
			contradicts("%s %s is known here with another root certificate: the owner of a second root certificate (with the key %s) in the same name could impersonate the node; expected the %s with the key %s", c.NodeType, c.NodeID, c.Fingerprint, old.NodeType, old.Fingerprint)
		}
		if c.Subnet != "" && old.NodeID == c.NodeID && old.Subnet != c.Subnet {
			contradicts("subnet %s, requested for %s %s, which has a certificate with the subnet %s already, and keeps it for ever: copy db/offline/signed-certificates to the same folder of the online machine, forget the request there (\"peerlink request forget\"), and make a new one. The subnet %[4]s is in the certificate", c.Subnet, c.NodeType, c.NodeID, old.Subnet)
		}
		if c.Subnet != "" && old.Subnet == c.Subnet && old.NodeID != c.NodeID {
			errs = append(errs, fmt.Errorf("subnet %s, requested for %s %s, is in the certificate of %s %s, which was signed here on %s for the request %.8s (line %d of db/offline/%s); "+
				"copy db/offline/signed-certificates to the same folder of the online machine, forget the request there (\"peerlink request forget\"), and make a new one, which has another subnet",
				c.Subnet, c.NodeType, c.NodeID, old.NodeType, old.NodeID, old.Time, old.Request, i+1, Name))
		}
	}
	return false, errors.Join(errs...)
}

// PeerCertificate returns the properties of a peer certificate for the node with a root
// certificate. subnet and serial are those of the certificate to be signed.
func PeerCertificate(peer pki.Identity, root *x509.Certificate, subnet, serial string) Certificate {
	sum := sha256.Sum256(root.Raw)
	return Certificate{
		Kind: PeerCert, NodeType: peer.Type.String(), NodeID: peer.ID,
		Fingerprint: pki.Fingerprint(root.PublicKey), Root: hex.EncodeToString(sum[:]),
		Subnet: subnet, Serial: serial,
	}
}
