package pki

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"time"
)

// VerifyServer verifies the certificates, in DER, that a server has presented to this
// node, which is connecting to peer. It trusts only the peer's root certificate: the
// first certificate must be a server certificate in the peer's name, signed with the
// peer's root key. Further certificates are not used, but must be well-formed, and count for
// the limits. VerifyServer returns the chain, with the server's certificate first. The error is
// a [*VerifyError].
//
// VerifyServer and [VerifyClient] do not prove that the other side has the private key;
// TLS does.
func VerifyServer(rawCerts [][]byte, peerRoot *x509.Certificate, peer Identity, now time.Time) ([]*x509.Certificate, error) {
	certs, err := parsePresented(rawCerts)
	if err != nil {
		return nil, err
	}
	leaf := certs[0]
	chain, err := Verify(leaf, VerifyOptions{
		Trusted:   []*x509.Certificate{peerRoot},
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		Time:      now,
	})
	if err != nil {
		return nil, err
	}
	if err := checkKeys(chain); err != nil {
		return nil, err
	}
	id, err := checkLeaf(leaf)
	if err != nil {
		return nil, err
	}
	if id != peer {
		return nil, &VerifyError{Rule: ruleSubject, Cert: leaf, Detail: fmt.Sprintf("expected %v", peer)}
	}
	if len(chain) != 2 {
		return nil, &VerifyError{Rule: ruleChain, Cert: leaf, Detail: "expected a server certificate signed with the root key"}
	}
	return chain, nil
}

// VerifyClient verifies the certificates, in DER, that a client has presented to this
// node, and returns the client's identity. It trusts only this node's root certificate,
// ownRoot. The first certificate must be the client's server certificate, signed with the
// client's root key. Another one must be the peer certificate that this node has issued
// for that root key. This node's own servers, and certificate authorities below a peer,
// are refused. VerifyClient returns the chain, with the client's certificate first. The
// error is a [*VerifyError].
func VerifyClient(rawCerts [][]byte, ownRoot *x509.Certificate, now time.Time) (Identity, []*x509.Certificate, error) {
	certs, err := parsePresented(rawCerts)
	if err != nil {
		return Identity{}, nil, err
	}
	own, err := IdentityOf(ownRoot.RawSubject)
	if err != nil {
		return Identity{}, nil, &VerifyError{Rule: ruleSubject, Cert: ownRoot, Detail: "our own root certificate", Err: err}
	}
	leaf := certs[0]
	chains, err := verify(leaf, VerifyOptions{
		Trusted:   []*x509.Certificate{ownRoot},
		Untrusted: certs[1:],
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		Time:      now,
	}, func(cert *x509.Certificate) bool {
		// Verifying a signature can take as long as a hundred handshakes if an attacker
		// chooses the key. Only keys in certificates issued by this node are used.
		return bytes.Equal(cert.RawIssuer, ownRoot.RawSubject) &&
			ownRoot.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
	})
	if err != nil {
		return Identity{}, nil, err
	}
	id, err := checkLeaf(leaf)
	if err != nil {
		return Identity{}, nil, err
	}
	if id == own {
		return Identity{}, nil, &VerifyError{Rule: ruleSubject, Cert: leaf, Detail: "this is our own name: expected a peer"}
	}
	for _, chain := range chains {
		if len(chain) != 3 {
			continue
		}
		// A name constraint, if there is one, has ensured this already.
		if holder, err := IdentityOf(chain[1].RawSubject); err == nil && holder == id {
			if err := checkKeys(chain); err != nil {
				return Identity{}, nil, err
			}
			return id, chain, nil
		}
	}
	return Identity{}, nil, &VerifyError{Rule: ruleChain, Cert: leaf,
		Detail: "expected a server certificate, then the peer certificate that we issued to the same node"}
}

// parsePresented parses the certificates that the other side has presented, within limits. It
// returns at least one certificate, or an error.
func parsePresented(rawCerts [][]byte) ([]*x509.Certificate, error) {
	if len(rawCerts) == 0 {
		return nil, &VerifyError{Rule: ruleChain, Detail: "no certificate was presented"}
	}
	if err := checkSize(rawCerts, func(raw []byte) int { return len(raw) }); err != nil {
		return nil, err
	}
	certs := make([]*x509.Certificate, 0, len(rawCerts))
	for i, raw := range rawCerts {
		cert, err := ParseCertificate(raw)
		if err != nil {
			return nil, &VerifyError{Rule: ruleFormat, Detail: fmt.Sprintf("certificate %d of %d", i+1, len(rawCerts)), Err: err}
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

// checkKeys checks that all keys of a chain are strong enough. An attacker who breaks one
// of them can impersonate the node.
func checkKeys(chain []*x509.Certificate) error {
	for _, cert := range chain {
		if err := checkStrength(cert.PublicKey); err != nil {
			return &VerifyError{Rule: ruleKey, Cert: cert, Err: err}
		}
	}
	return nil
}

// checkLeaf checks the properties that the leaf certificates of clients and servers have
// in common, and returns the identity of the subject.
func checkLeaf(leaf *x509.Certificate) (Identity, error) {
	if leaf.IsCA {
		return Identity{}, &VerifyError{Rule: ruleCA, Cert: leaf, Detail: "a certificate of an authority: expected a server certificate"}
	}
	// TLS 1.3 uses the key for signatures only.
	if leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 && findExtension(leaf, oidKeyUsage) != nil {
		return Identity{}, &VerifyError{Rule: ruleKeyUsage, Cert: leaf, Detail: "expected keyUsage with digitalSignature"}
	}
	id, err := IdentityOf(leaf.RawSubject)
	if err != nil {
		return Identity{}, &VerifyError{Rule: ruleSubject, Cert: leaf, Err: err}
	}
	return id, nil
}
