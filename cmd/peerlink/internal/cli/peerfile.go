package cli

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"strings"

	"peerlink/node/pki"
)

// fileKind is what a file that is given to "peer add" turns out to be.
type fileKind int

const (
	unknownFile fileKind = iota
	bundleFile
	certificateFile
	requestFile
	keyFile
)

// wrongFile has what to say about each kind of file with which "peer add" can do nothing.
var wrongFile = map[fileKind]string{
	unknownFile: "expected an info-bundle (a zip file) or a certificate in PEM, and this is neither",
	requestFile: "this is a certificate signing request, which is for \"peerlink server-cert sign\" if it is this node's; expected the info-bundle of another node, or the certificate that its owner has signed",
	keyFile:     "this is a key: never hand it to anybody. Expected the info-bundle of another node, or the certificate that its owner has signed",
}

// kindOfFile returns what kind of file has the given content.
func kindOfFile(data []byte) fileKind {
	if bytes.HasPrefix(data, []byte("PK\x03\x04")) {
		return bundleFile
	}
	block, _ := pem.Decode(data)
	switch {
	case block == nil:
		return unknownFile
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return keyFile
	case block.Type == "CERTIFICATE":
		return certificateFile
	case strings.HasSuffix(block.Type, "CERTIFICATE REQUEST"):
		return requestFile
	}
	return unknownFile
}

// checkForeign returns an error if a certificate is not one that another node has issued to this one. It
// recognizes what operators mix up: own and foreign certificates, and those of peers, servers and roots.
func (p *peerAdding) checkForeign(data []byte) error {
	cert, err := pki.ParseCertificatePEM(data)
	if err != nil {
		return err
	}
	subject, err := pki.IdentityOf(cert.RawSubject)
	if err != nil {
		return fmt.Errorf("this is not the certificate of a Swaptacular node: %w", err)
	}
	issuer, err := pki.IdentityOf(cert.RawIssuer)
	if err != nil {
		return fmt.Errorf("this certificate was not issued by a Swaptacular node: %w", err)
	}
	own := p.d.Identity()
	switch {
	case subject == own && issuer == own && cert.IsCA:
		return fmt.Errorf("this is the root certificate of this node itself, which is a part of its info-bundle: send %s to the other owner, who adds it", p.bundleOf())
	case subject == own && issuer == own:
		return fmt.Errorf("this is a server certificate of this node itself, which \"peerlink serve --server-cert\" uses: expected the peer certificate that another node has issued to %s", own)
	case subject == issuer:
		return fmt.Errorf("this is the root certificate of %s: expected its info-bundle, which proves more, or the peer certificate that it has issued to %s", subject, own)
	case issuer == own:
		return fmt.Errorf("this is the peer certificate that this node has issued to %s: send it to the owner of %s, who adds it there; expected the one that %s has issued to %s", subject, subject.ID, subject.ID, own)
	case subject != own:
		return fmt.Errorf("this certificate was issued by %s to %s: expected one that was issued to %s", issuer, subject, own)
	case !p.d.HasPeer(issuer.ID):
		return fmt.Errorf("this is the peer certificate that %s has issued to this node, but %s is no peer here yet: first add its info-bundle, \"%s\"", issuer, issuer.ID, p.a.commandFor("peer add THEIR-BUNDLE.zip"))
	}
	return nil
}

// bundleOf returns what is to be sent instead of the root certificate.
func (p *peerAdding) bundleOf() string {
	if path := p.d.CurrentBundle(); path != "" {
		return path
	}
	return fmt.Sprintf("the info-bundle that \"%s\" makes", p.a.createBundle())
}
