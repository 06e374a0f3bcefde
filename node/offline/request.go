package offline

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"time"

	"peerlink/internal/excerpt"
	"peerlink/internal/textfile"
	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// maxDays is the maximum validity of a server certificate in days.
const maxDays = 3650

// clockTolerance is the time by which this machine's clock may be behind the clock of the online
// machine. Certificates become valid this long before they are signed, so that they are valid by
// both clocks.
const clockTolerance = 5 * time.Minute

// Request is a verified request to sign items with the root key of one node. Only [Collect] and
// [ReadRequest] make requests. A Request is immutable.
type Request struct {
	ID      string       // 32 random hex digits
	Created time.Time    // by the online machine's clock
	Node    pki.Identity // the node whose root key has to sign

	root    *x509.Certificate
	rootCSR []byte // PEM; if nil, it has to be made for an info-bundle
	servers []serverCert
	peers   []peerCert
	info    *infoBundle // nil if none is requested
	raw     []byte      // content of the file
	hidden  error       // what is in the file and not in the summary; nil if nothing is
}

// serverCert requests a certificate for one of the node's servers.
type serverCert struct {
	serial *big.Int
	csr    *x509.CertificateRequest
	days   int
	file   string // path of the certificate on the online machine
}

func (s serverCert) validity() time.Duration { return time.Duration(s.days) * 24 * time.Hour }

// peerCert requests the peer certificate of a new peer.
type peerCert struct {
	serial   *big.Int
	bundle   *infobundle.Bundle
	stomp    *node.StompConfig
	subnet   string
	replaces *replacedPeer // nil if the node takes nobody's place
}

// replacedPeer is a peer that has lost its root key.
type replacedPeer struct {
	id         string
	root       *x509.Certificate
	keepSubnet bool // the new node gets its subnet, and so its accounts
}

// replacement returns the replacement that the certificate is for. p.replaces must not be nil.
func (p peerCert) replacement() node.Replacement {
	return node.Replacement{Peer: p.replaces.id, Bundle: p.bundle, KeepSubnet: p.replaces.keepSubnet}
}

// infoBundle requests the node's own info-bundle.
type infoBundle struct {
	files []infobundle.File
	stomp *node.StompConfig
	date  string
	file  string // path of the info-bundle on the online machine
}

// Encode returns the content of the request's file.
func (r *Request) Encode() []byte { return bytes.Clone(r.raw) }

// needsCSR reports whether the root key's certificate signing request has to be made.
func (r *Request) needsCSR() bool { return r.info != nil && r.rootCSR == nil }

// hash returns the SHA-256 of the request's file, in hex.
func (r *Request) hash() string { return sha256Hex(r.raw) }

func sha256Hex(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// ReadRequest parses the file of a request, and checks everything that can be checked without
// the root key. It fails if this machine's time, now, is more than a few minutes before the time
// at which the request was made.
func ReadRequest(data []byte, now time.Time) (*Request, error) {
	r, err := readStored(data, now)
	if err == nil && r.hidden != nil {
		return nil, fmt.Errorf("signing request: %w: %w; if an earlier version of peerlink has made it, forget it (\"peerlink request forget\"), and make a new one", errFormat, r.hidden)
	}
	return r, err
}

// readStored does the same as [ReadRequest] for a request that is kept in the node's directory, where earlier
// versions have stored some that ReadRequest refuses.
func readStored(data []byte, now time.Time) (*Request, error) {
	r, err := readRequest(data, now)
	if errors.Is(err, errClock) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("signing request: %w: %w", errFormat, err)
	}
	return r, nil
}

func readRequest(data []byte, now time.Time) (*Request, error) {
	data = textfile.WithoutCR(data)
	var f requestFile
	if err := decode(data, requestFormat, &f, &f.header); err != nil {
		return nil, err
	}
	r := &Request{ID: f.ID, rootCSR: f.RootCSR, raw: bytes.Clone(data)}
	var err error
	if r.Created, err = time.Parse(time.RFC3339, f.Created); err != nil || f.Created != formatTime(r.Created) {
		return nil, fmt.Errorf("created %q: expected a time in UTC, for example 2026-01-31T12:00:00Z", excerpt.Of(f.Created))
	}
	// Checked first, because a wrong clock affects the verification of certificates.
	if err := r.checkClock(now); err != nil {
		return nil, err
	}
	if r.Node.Type, err = nodetype.Parse(f.NodeType); err != nil || f.NodeType != r.Node.Type.String() {
		return nil, fmt.Errorf("unknown node type %q", excerpt.Of(f.NodeType))
	}
	r.Node.ID = f.NodeID
	if r.root, err = pki.ParseCertificatePEM(f.Root); err != nil {
		return nil, fmt.Errorf("the node's root certificate: %w", err)
	}
	if id, err := pki.CheckRoot(r.root, now); err != nil {
		return nil, fmt.Errorf("the node's root certificate: %w", err)
	} else if id != r.Node {
		return nil, fmt.Errorf("the root certificate is that of %s: expected that of the node, %s %q", id, r.Node.Type, excerpt.Of(r.Node.ID))
	}
	if r.rootCSR != nil {
		if err := r.checkRootCSR(r.rootCSR); err != nil {
			return nil, err
		}
	}
	if n := len(f.ServerCerts) + len(f.PeerCerts); n > maxItems || n == 0 && f.InfoBundle == nil {
		return nil, fmt.Errorf("it requests %d certificates: expected at most %d, and at least one item", n, maxItems)
	}
	for i, s := range f.ServerCerts {
		if err := r.addServerCert(s); err != nil {
			return nil, fmt.Errorf("server certificate %d: %w", i+1, err)
		}
	}
	left := maxUnpacked
	for i, p := range f.PeerCerts {
		if err := r.addPeerCert(p, now, &left); err != nil {
			return nil, fmt.Errorf("peer certificate %d: %w", i+1, err)
		}
	}
	if f.InfoBundle != nil {
		if err := r.addInfoBundle(f.InfoBundle, now); err != nil {
			return nil, fmt.Errorf("info-bundle: %w", err)
		}
	}
	r.hidden = f.checkHidden(r)
	return r, r.checkDistinct()
}

// checkHidden returns an error if the file has something that the request's summary does not show: text
// around the root certificate or the root key's signing request, or such a signing request without use.
func (f *requestFile) checkHidden(r *Request) error {
	if !bytes.Equal(f.Root, pki.EncodeCertificatePEM(r.root)) {
		return errors.New("the node's root certificate has text around it")
	}
	if f.RootCSR == nil {
		return nil
	}
	if f.InfoBundle == nil {
		return errors.New("it has the root key's signing request, which is for an info-bundle, and requests none")
	}
	if csr, err := pki.ParseCSRPEM(f.RootCSR); err != nil || !bytes.Equal(f.RootCSR, pki.EncodeCSRPEM(csr.Raw)) {
		return errors.New("the root key's signing request has text around it")
	}
	return nil
}

// formatTime formats a time for a request.
func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (r *Request) checkClock(now time.Time) error {
	if now.Add(clockTolerance).Before(r.Created) {
		return fmt.Errorf("%w: it shows %s on this machine, but the request was made at %s; set the clock, since certificates get their dates from it",
			errClock, formatTime(now), formatTime(r.Created))
	}
	return nil
}

// checkRootCSR checks a signing request of the root key, in PEM.
func (r *Request) checkRootCSR(pem []byte) error {
	csr, err := pki.ParseCSRPEM(pem)
	if err != nil {
		return fmt.Errorf("the root key's signing request: %w", err)
	}
	if !bytes.Equal(csr.RawSubjectPublicKeyInfo, r.root.RawSubjectPublicKeyInfo) || !bytes.Equal(csr.RawSubject, r.root.RawSubject) {
		return errors.New("the root key's signing request has another key or subject than the root certificate")
	}
	return nil
}

func (r *Request) addServerCert(f serverCertFile) error {
	s := serverCert{days: f.Days, file: f.File}
	var err error
	if s.serial, err = parseSerial(f.Serial); err != nil {
		return err
	}
	if s.csr, err = pki.ParseCSRPEM([]byte(f.CSR)); err != nil {
		return err
	}
	if f.CSR != string(pki.EncodeCSRPEM(s.csr.Raw)) {
		return errors.New("the signing request has text around it")
	}
	if err := checkServerCSR(s.csr, r.Node, r.root); err != nil {
		return err
	}
	if err := checkDays(s.days); err != nil {
		return err
	}
	r.servers = append(r.servers, s)
	return checkPath(s.file)
}

func checkServerCSR(csr *x509.CertificateRequest, self pki.Identity, root *x509.Certificate) error {
	id, err := pki.IdentityOf(csr.RawSubject)
	switch {
	case err != nil:
		return fmt.Errorf("the signing request: %w", err)
	case id != self:
		return fmt.Errorf("the signing request is for %s; %s signs server certificates for itself only", id, self)
	case bytes.Equal(csr.RawSubjectPublicKeyInfo, root.RawSubjectPublicKeyInfo):
		return errors.New("the signing request is for the root key: a server must have a key of its own")
	}
	return nil
}

func checkDays(days int) error {
	if days < 1 || days > maxDays {
		return fmt.Errorf("a validity of %d days: expected 1 to %d", days, maxDays)
	}
	return nil
}

// addPeerCert adds the request for a peer certificate. It reduces *left, the number of bytes to
// which the info-bundles in the request may still unpack.
func (r *Request) addPeerCert(f peerCertFile, now time.Time, left *int) error {
	p := peerCert{subnet: f.Subnet}
	var err error
	if p.serial, err = parseSerial(f.Serial); err != nil {
		return err
	}
	if p.bundle, err = infobundle.ReadWithin(f.Bundle, now, left); err != nil {
		return err
	}
	id := p.bundle.Identity
	if !r.Node.Type.CanPeer(id.Type) {
		return fmt.Errorf("%s and %s can not become peers: one must be an accounting authority, the other an agent", r.Node, id)
	}
	if bytes.Equal(p.bundle.Root.RawSubjectPublicKeyInfo, r.root.RawSubjectPublicKeyInfo) {
		return fmt.Errorf("%s has the same root key as this node", id)
	}
	if p.stomp, err = node.ParseStompTOML(p.bundle.File(infobundle.StompTOML), r.Node.ID); err != nil {
		return fmt.Errorf("%s: %w", id, err)
	}
	if err := pki.CheckSubnet(r.Node, id, p.subnet); err != nil {
		return err
	}
	// A shorter subnet would contain the subnets of other peers.
	if id.Type == nodetype.DebtorsAgent && len(p.subnet) != len(r.Node.ID)+2 {
		return fmt.Errorf("subnet %q for %s: expected %s and 2 more hex digits", p.subnet, id, r.Node.ID)
	}
	if f.Replaces != nil {
		if p.replaces, err = r.readReplaced(f.Replaces, p.bundle, now); err != nil {
			return fmt.Errorf("the peer that %s replaces: %w", id, err)
		}
	}
	r.peers = append(r.peers, p)
	return nil
}

// readReplaced reads the part of a request that names the peer whose place the node of a bundle takes.
func (r *Request) readReplaced(f *replacedFile, next *infobundle.Bundle, now time.Time) (*replacedPeer, error) {
	root, err := pki.ParseCertificatePEM(f.Root)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(f.Root, pki.EncodeCertificatePEM(root)) {
		return nil, errors.New("its root certificate has text around it")
	}
	old, err := pki.CheckRoot(root, now)
	authority := r.Node.Type == nodetype.AccountingAuthority
	switch {
	case err != nil:
		return nil, err
	case old.Type != next.Identity.Type:
		return nil, fmt.Errorf("it is %s, a node of another type", old)
	case root.Equal(next.Root):
		return nil, errors.New("it has the same root certificate, so that there is nothing to replace")
	case authority && old == next.Identity:
		return nil, errors.New("its ID follows from its root key: expected another ID")
	case !authority && old != next.Identity:
		return nil, fmt.Errorf("it is %s: an accounting authority keeps its ID", old)
	case !authority && f.KeepSubnet:
		return nil, fmt.Errorf("%s gives no subnets", r.Node)
	}
	return &replacedPeer{id: old.ID, root: root, keepSubnet: f.KeepSubnet}, nil
}

func (r *Request) addInfoBundle(f *infoBundleFile, now time.Time) error {
	b := &infoBundle{file: f.File}
	var stompTOML []byte
	for _, n := range f.Nodeinfo {
		if err := checkPath(n.Name); err != nil {
			return err
		}
		switch n.Name {
		case infobundle.StompTOML:
			stompTOML = n.Data
		case infobundle.UpdatedAt:
			b.date = infobundle.DateOf(n.Data)
		}
		b.files = append(b.files, infobundle.File{Name: n.Name, Data: n.Data})
	}
	if err := infobundle.CheckFiles(b.files); err != nil {
		return err
	}
	if b.date == "" {
		return fmt.Errorf("it has no date in %s", infobundle.UpdatedAt)
	}
	if err := infobundle.CheckDate(b.date, now); err != nil {
		return fmt.Errorf("%s: %w", infobundle.UpdatedAt, err)
	}
	for _, file := range b.files {
		if err := infobundle.CheckPublic(file); err != nil {
			return err
		}
	}
	var err error
	if b.stomp, err = node.ParseStompTOML(stompTOML, nodeIDVariable); err == nil {
		err = b.stomp.BundleURLsErr // peers ignore this error, but the operator has to correct it
	}
	if err != nil {
		return err
	}
	r.info = b
	return checkPath(b.file)
}

// checkDistinct checks that no item is requested twice, and that a debtors agent gets one peer.
func (r *Request) checkDistinct() error {
	seen := make(map[string]bool)
	once := func(what, value string) error {
		if key := what + " " + value; seen[key] {
			return fmt.Errorf("%s is in it twice", excerpt.Of(key))
		} else {
			seen[key] = true
		}
		return nil
	}
	var errs []error
	for _, s := range r.servers {
		errs = append(errs, once("serial number", pki.SerialHex(s.serial)), once("file", s.file))
	}
	for _, p := range r.peers {
		errs = append(errs, once("serial number", pki.SerialHex(p.serial)), once("peer", p.bundle.Identity.ID))
		if p.subnet != "" {
			errs = append(errs, once("subnet", p.subnet))
		}
		if p.replaces != nil && p.replaces.id != p.bundle.Identity.ID {
			errs = append(errs, once("peer", p.replaces.id))
		}
	}
	if r.info != nil {
		errs = append(errs, once("file", r.info.file))
	}
	if r.Node.Type == nodetype.DebtorsAgent && len(r.peers) > 1 {
		errs = append(errs, fmt.Errorf("it has %d peers for a debtors agent, which has exactly one", len(r.peers)))
	}
	return errors.Join(errs...)
}
