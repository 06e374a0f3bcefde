package offline

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"peerlink/internal/excerpt"
	"peerlink/internal/textfile"
	"peerlink/node/infobundle"
	"peerlink/node/pki"
)

// Answer holds the signatures for a request. Only [Fulfil] and [ReadAnswer] make answers. An
// Answer is immutable. [File] compares its content with the request.
type Answer struct {
	ID string // of the request

	requestHash string // the SHA-256 of the request's bytes, in hex
	rootCSR     []byte // PEM; nil unless the request needed a new one
	servers     []*x509.Certificate
	peers       []*x509.Certificate
	nodeinfo    []byte // nodeinfo.zip; nil unless an info-bundle was requested
	signature   []byte // of nodeinfo
	raw         []byte // content of the file
}

// Encode returns the content of the answer's file.
func (a *Answer) Encode() []byte { return bytes.Clone(a.raw) }

func (a *Answer) hash() string { return sha256Hex(a.raw) }

// ReadAnswer parses the file of an answer.
func ReadAnswer(data []byte) (*Answer, error) {
	a, err := readAnswer(data)
	if err != nil {
		return nil, fmt.Errorf("signing answer: %w: %w", errFormat, err)
	}
	return a, nil
}

func readAnswer(data []byte) (*Answer, error) {
	data = textfile.WithoutCR(data)
	var f answerFile
	if err := decode(data, answerFormat, &f, &f.header); err != nil {
		return nil, err
	}
	a := &Answer{ID: f.ID, requestHash: f.Request, nodeinfo: f.Nodeinfo, signature: f.Signature, raw: bytes.Clone(data)}
	if !isHex(f.Request, 64) {
		return nil, fmt.Errorf("request_sha256 is %q: expected 64 lowercase hex digits", excerpt.Of(f.Request))
	}
	if n := len(f.ServerCerts) + len(f.PeerCerts); n > maxItems {
		return nil, fmt.Errorf("it has %d certificates, more than %d", n, maxItems)
	}
	if f.RootCSR != "" {
		csr, err := pki.ParseCSRPEM([]byte(f.RootCSR))
		if err == nil && f.RootCSR != string(pki.EncodeCSRPEM(csr.Raw)) {
			err = errors.New("it has text around it")
		}
		if err != nil {
			return nil, fmt.Errorf("root_csr: %w", err)
		}
		a.rootCSR = []byte(f.RootCSR)
	}
	var err error
	if a.servers, err = parseCerts(f.ServerCerts); err != nil {
		return nil, fmt.Errorf("server certificate %w", err)
	}
	if a.peers, err = parseCerts(f.PeerCerts); err != nil {
		return nil, fmt.Errorf("peer certificate %w", err)
	}
	return a, nil
}

func parseCerts(pems []string) (certs []*x509.Certificate, err error) {
	for i, text := range pems {
		cert, err := pki.ParseCertificatePEM([]byte(text))
		if err == nil && text != string(pki.EncodeCertificatePEM(cert)) {
			err = errors.New("it has text around it")
		}
		if err != nil {
			return nil, fmt.Errorf("%d: %w", i+1, err)
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

// match checks that the answer has exactly the requested items. Errors wrap
// [errMismatch].
func (r *Request) match(a *Answer, now time.Time) error {
	if err := r.compare(a, now); err != nil {
		return fmt.Errorf("%w %s: %w", errMismatch, r.ID, err)
	}
	return nil
}

func (r *Request) compare(a *Answer, now time.Time) error {
	switch {
	case a.ID != r.ID:
		return fmt.Errorf("it answers the request %s", a.ID)
	case a.requestHash != r.hash():
		return errors.New("the request that was signed is not the one that was collected: it was changed on its way")
	case len(a.servers) != len(r.servers) || len(a.peers) != len(r.peers):
		return fmt.Errorf("it has %d server and %d peer certificates: expected %d and %d", len(a.servers), len(a.peers), len(r.servers), len(r.peers))
	case (a.nodeinfo != nil) != (r.info != nil) || (a.signature != nil) != (r.info != nil) || (a.rootCSR != nil) != r.needsCSR():
		return errors.New("it has an info-bundle or a root-csr that was not requested, or lacks one that was requested")
	}
	for i, s := range r.servers {
		if err := r.matchServer(s, a.servers[i], now); err != nil {
			return fmt.Errorf("server certificate for %s: %w", s.file, err)
		}
	}
	for i, p := range r.peers {
		if err := r.matchPeer(p, a.peers[i], now); err != nil {
			return fmt.Errorf("peer certificate for %s: %w", p.bundle.Identity, err)
		}
	}
	if a.rootCSR != nil {
		if err := r.checkRootCSR(a.rootCSR); err != nil {
			return err
		}
	}
	if r.info != nil {
		if err := r.matchInfo(a, now); err != nil {
			return fmt.Errorf("info-bundle: %w", err)
		}
	}
	return nil
}

func (r *Request) matchServer(s serverCert, cert *x509.Certificate, now time.Time) error {
	if err := checkNotBefore(cert, now); err != nil {
		return err
	}
	if _, err := pki.VerifyServer([][]byte{cert.Raw}, r.root, r.Node, now); err != nil {
		return err
	}
	// A certificate becomes valid a little before it is signed.
	life := cert.NotAfter.Sub(cert.NotBefore)
	switch {
	case !bytes.Equal(cert.RawSubjectPublicKeyInfo, s.csr.RawSubjectPublicKeyInfo):
		return fmt.Errorf("it has the key %s: expected %s", pki.Fingerprint(cert.PublicKey), pki.Fingerprint(s.csr.PublicKey))
	case cert.SerialNumber.Cmp(s.serial) != 0:
		return fmt.Errorf("it has the serial number %s: expected %s", pki.SerialHex(cert.SerialNumber), pki.SerialHex(s.serial))
	case life < s.validity() || life > s.validity()+time.Hour:
		return fmt.Errorf("it is valid from %s to %s: expected %d days", formatTime(cert.NotBefore), formatTime(cert.NotAfter), s.days)
	}
	return nil
}

func (r *Request) matchPeer(p peerCert, cert *x509.Certificate, now time.Time) error {
	if err := checkNotBefore(cert, now); err != nil {
		return err
	}
	subnet, err := pki.CheckPeer(cert, r.root, p.bundle.Root, now)
	switch {
	case err != nil:
		return err
	case subnet != p.subnet:
		return fmt.Errorf("it has the subnet %q: expected %q", subnet, p.subnet)
	case cert.SerialNumber.Cmp(p.serial) != 0:
		return fmt.Errorf("it has the serial number %s: expected %s", pki.SerialHex(cert.SerialNumber), pki.SerialHex(p.serial))
	}
	return nil
}

// checkNotBefore fails if a certificate is not valid yet, which means that the clock of one of
// the two machines is wrong.
func checkNotBefore(cert *x509.Certificate, now time.Time) error {
	if now.Before(cert.NotBefore) {
		return fmt.Errorf("it is valid from %s on, and here it is %s: the clock of the machine that signed it was ahead, or this machine's clock is behind; sign the request again with the right time",
			formatTime(cert.NotBefore), formatTime(now))
	}
	return nil
}

// assemble makes the info-bundle, with the given content of root-ca.crt. It uses only the signed part of the
// answer, so that the zip file can contain nothing else.
func (r *Request) assemble(a *Answer, rootPEM []byte) ([]byte, error) {
	csr := r.rootCSR
	if csr == nil {
		csr = a.rootCSR
	}
	return infobundle.Assemble(rootPEM, csr, a.nodeinfo, a.signature)
}

func (r *Request) matchInfo(a *Answer, now time.Time) error {
	data, err := r.assemble(a, pki.EncodeCertificatePEM(r.root))
	if err != nil {
		return err
	}
	b, err := infobundle.Read(data, now)
	if err != nil {
		return err
	}
	if b.Identity != r.Node || !b.Root.Equal(r.root) {
		return fmt.Errorf("it is the info-bundle of %s, or has another root certificate: expected the info-bundle of this node", b.Identity)
	}
	if len(b.Nodeinfo) != len(r.info.files) {
		return fmt.Errorf("it has %d files: expected %d", len(b.Nodeinfo), len(r.info.files))
	}
	for _, f := range r.info.files {
		if got := b.File(f.Name); got == nil || !bytes.Equal(got, f.Data) {
			return fmt.Errorf("its file %s is missing, or differs from the requested file", f.Name)
		}
	}
	return nil
}
