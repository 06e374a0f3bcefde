package pki

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"time"
)

// VerifyServer checks the certificates, in DER, that a server has shown to us
// who dialed peer. It trusts the root certificate of that peer alone: the first
// certificate must be signed with the peer's root key, in the peer's name, and
// be good for a server. Whatever follows it is not needed, and ignored. The
// chain is returned, the server's certificate first. The error is a
// [*VerifyError].
//
// Like [VerifyClient] it does not prove that the other side has the private
// key; TLS does.
func VerifyServer(rawCerts [][]byte, peerRoot *x509.Certificate, peer Identity, now time.Time) ([]*x509.Certificate, error) {
	certs, err := parseShown(rawCerts)
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
		return nil, &VerifyError{Rule: RuleSubject, Cert: leaf, Detail: fmt.Sprintf("expected %v", peer)}
	}
	if len(chain) != 2 {
		return nil, &VerifyError{Rule: RuleChain, Cert: leaf, Detail: "expected a server certificate signed with the root key"}
	}
	return chain, nil
}

// VerifyClient checks the certificates, in DER, that a client has shown to us
// who accepted its connection, and returns who it is. It trusts our own root
// certificate alone, and demands the one chain that a peer can have: a server
// certificate, signed with the root key of the peer, for which we have issued
// the peer certificate that must be among those shown. Our own servers, and
// authorities that a peer has set up below itself, are refused. The chain is
// returned, the client's certificate first. The error is a [*VerifyError].
func VerifyClient(rawCerts [][]byte, ownRoot *x509.Certificate, now time.Time) (Identity, []*x509.Certificate, error) {
	certs, err := parseShown(rawCerts)
	if err != nil {
		return Identity{}, nil, err
	}
	own, err := IdentityOf(ownRoot.RawSubject)
	if err != nil {
		return Identity{}, nil, &VerifyError{Rule: RuleSubject, Cert: ownRoot, Detail: "our own root certificate", Err: err}
	}
	leaf := certs[0]
	chains, err := verify(leaf, VerifyOptions{
		Trusted:   []*x509.Certificate{ownRoot},
		Untrusted: certs[1:],
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		Time:      now,
	}, func(cert *x509.Certificate) bool {
		// A stranger can show keys with which a single signature takes as long
		// as a hundred handshakes. Only those that we have signed are used.
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
		return Identity{}, nil, &VerifyError{Rule: RuleSubject, Cert: leaf, Detail: "this is our own name: expected a peer"}
	}
	for _, chain := range chains {
		if len(chain) != 3 {
			continue
		}
		// The name constraint has seen to this already, if there is one.
		if holder, err := IdentityOf(chain[1].RawSubject); err == nil && holder == id {
			if err := checkKeys(chain); err != nil {
				return Identity{}, nil, err
			}
			return id, chain, nil
		}
	}
	return Identity{}, nil, &VerifyError{Rule: RuleChain, Cert: leaf,
		Detail: "expected a server certificate, then the peer certificate that we issued to the same node"}
}

// parseShown parses what came over the wire, within limits, and returns at
// least one certificate.
func parseShown(rawCerts [][]byte) ([]*x509.Certificate, error) {
	if len(rawCerts) == 0 {
		return nil, &VerifyError{Rule: RuleChain, Detail: "no certificate was shown"}
	}
	if err := checkSize(rawCerts, func(raw []byte) int { return len(raw) }); err != nil {
		return nil, err
	}
	certs := make([]*x509.Certificate, 0, len(rawCerts))
	for i, raw := range rawCerts {
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			return nil, &VerifyError{Rule: RuleFormat, Detail: fmt.Sprintf("certificate %d of %d", i+1, len(rawCerts)), Err: err}
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

// checkKeys checks that all keys of a chain are strong enough: an attacker who breaks one of
// them is that node.
func checkKeys(chain []*x509.Certificate) error {
	for _, cert := range chain {
		if err := checkStrength(cert.PublicKey); err != nil {
			return &VerifyError{Rule: RuleKey, Cert: cert, Err: err}
		}
	}
	return nil
}

// checkLeaf checks for what the certificates of both ends of a link have in
// common, and returns whose it is.
func checkLeaf(leaf *x509.Certificate) (Identity, error) {
	if leaf.IsCA {
		return Identity{}, &VerifyError{Rule: RuleCA, Cert: leaf, Detail: "a certificate of an authority: expected a server certificate"}
	}
	// TLS 1.3 signs, and does nothing else with the key.
	if leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 && findExtension(leaf, oidKeyUsage) != nil {
		return Identity{}, &VerifyError{Rule: RuleKeyUsage, Cert: leaf, Detail: "expected keyUsage with digitalSignature"}
	}
	id, err := IdentityOf(leaf.RawSubject)
	if err != nil {
		return Identity{}, &VerifyError{Rule: RuleSubject, Cert: leaf, Err: err}
	}
	return id, nil
}
