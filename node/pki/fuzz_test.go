package pki

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"reflect"
	"testing"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"peerlink/internal/costtest"
)

// For any bytes, parsing name constraints does not panic. Encoding and parsing
// accepted constraints again gives the same subtrees, and the same result for every
// name. The result for a name does not change if it is checked again.
func FuzzNameConstraints(f *testing.F) {
	base := dirName(dn(rdnO(Organization), rdnOU("Creditors Agents")))
	f.Add(tlv(0x30, permit(subtree(base))))
	f.Add(tlv(0x30, permit(subtree(base, tlv(0x80, []byte{0}))), exclude(subtree(dirName(dn())))))
	f.Add(tlv(0x30, permit(subtree(base, tlv(0x80, []byte{1})))))
	f.Add(tlv(0x30, exclude(subtree(tlv(0x82, []byte("example.com"))), subtree(tlv(0x88, []byte{42})))))
	f.Add(tlv(0x30, permit(subtree(dirName(oneName(tagBMPString, "\x00a\x20\xac"))), subtree(dirName(oneName(cbasn1.T61String, "a\xe9"))))))
	f.Add(tlv(0x30, permit(subtree(dirName(dn(tlv(0x31, ava(oidOrganization, cbasn1.UTF8String, "a"), ava(oidCommonName, cbasn1.UTF8String, "b"))))))))

	var names []*certNames
	for _, raw := range [][]byte{
		dn(),
		dn(rdnO(Organization)),
		dn(rdnO(Organization), rdnOU("Creditors Agents"), rdnCN("x")),
		dn(rdnO("swaptacular  nodes registry"), rdnOU("Debtors Agents")),
		oneName(tagUniversalString, "\x00\x00\x00a\x00\x00\x20\xac"),
		dn(tlv(0x31, ava(oidCommonName, cbasn1.UTF8String, "b"), ava(oidOrganization, cbasn1.UTF8String, "a"))),
		dn(tlv(0x31, ava(oidEmailAddress, cbasn1.IA5String, "a@example.com"))),
	} {
		n, err := parseName(raw)
		check(f, err)
		names = append(names, &certNames{subject: n}, &certNames{alt: []generalName{{tag: tagDirectoryName, dir: n}}})
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		nc, err := parseNameConstraints(der)
		if err != nil {
			return
		}
		again, err := nc.marshal()
		check(t, err)
		back, err := parseNameConstraints(again)
		if err != nil {
			t.Fatalf("refused after encoding again: %v\n%x\n%x", err, der, again)
		}
		if !reflect.DeepEqual(nc, back) {
			t.Fatalf("changed by encoding again:\n%x\n%x", der, again)
		}
		third, err := back.marshal()
		check(t, err)
		if !bytes.Equal(again, third) {
			t.Fatalf("encoding is not stable:\n%x\n%x", again, third)
		}
		for i, n := range names {
			first := nc.check(n) == nil
			if first != (nc.check(n) == nil) || first != (back.check(n) == nil) {
				t.Fatalf("name %d: the results of checking it differ:\n%x", i, der)
			}
		}
	})
}

// For any bytes, IdentityOf does not panic, and an accepted name is the name of a
// node that can exist.
func FuzzIdentityOf(f *testing.F) {
	f.Add(dn(rdnO(Organization), rdnOU("Accounting Authorities"), tlv(0x31, ava(oidSerialNumber, cbasn1.PrintableString, "1234abcd"))))
	f.Fuzz(func(t *testing.T, der []byte) {
		id, err := IdentityOf(der)
		if err != nil {
			return
		}
		own, err := id.Subject()
		if err != nil {
			t.Fatalf("%v: %v", id, err)
		}
		if back, err := IdentityOf(own); err != nil || back != id {
			t.Fatalf("%v: read back as %v, %v", id, back, err)
		}
	})
}

// For any bytes, DecodeKey does not panic, and requests no passphrase before it has
// checked the cost of using it.
func FuzzDecodeKey(f *testing.F) {
	for _, s := range keySamples(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		// An empty passphrase is refused, so no key derivation slows this down.
		costtest.Check(t, "a key", func() { _, _ = DecodeKey(data, func() ([]byte, error) { return nil, nil }) })
	})
}

// For any two certificates of a client or a server, verification does not panic, and
// the only accepted identity is that of the node whose key has signed them.
func FuzzVerifyClient(f *testing.F) {
	p := newPeers(f)
	f.Add(p.serverCA.Raw, p.peerCA.Raw)
	f.Add(p.serverDA.Raw, p.peerCA.Raw)
	f.Add(p.serverAA.Raw, p.aa.Cert.Raw)
	for _, signer := range []int{1, 5} { // in another's name, and with another key
		subject := [][]byte{1: p.da.Cert.RawSubject, 5: p.ca.Cert.RawSubject}[signer]
		f.Add(issue(f, subject, p.ca.Cert.RawSubject, ecKey(signer), basicConstraintsLeaf(), keyUsageServer()).Raw, p.peerCA.Raw)
	}
	f.Add(p.serverCA.Raw, certificate{subject: p.ca.Cert.RawSubject, issuer: p.aa.Cert.RawSubject, key: ecKey(1),
		extensions: []pkix.Extension{constraints(permit(subtree(dirName(nameB), tlv(0x80, []byte{1})))), altNames(true, dirName(nameB))}}.der(f))
	f.Fuzz(func(t *testing.T, leaf, between []byte) {
		shown := [][]byte{leaf, between}
		var id Identity
		var chain []*x509.Certificate
		var err error
		costtest.Check(t, "a chain", func() { id, chain, err = VerifyClient(shown, p.aa.Cert, testNow) })
		if err == nil && (id != p.ca.id || !bytes.Equal(chain[0].RawTBSCertificate, p.serverCA.RawTBSCertificate)) {
			t.Fatalf("accepted as the client %v:\n%x\n%x", id, leaf, between)
		}
		for _, peer := range []struct {
			node   testNode
			server *x509.Certificate
		}{{p.aa, p.serverAA}, {p.ca, p.serverCA}} {
			chain, err := VerifyServer(shown, peer.node.Cert, peer.node.id, testNow)
			if err == nil && (!bytes.Equal(chain[0].RawTBSCertificate, peer.server.RawTBSCertificate) || !chain[1].Equal(peer.node.Cert)) {
				t.Fatalf("accepted as a server of %v:\n%x\n%x", peer.node.id, leaf, between)
			}
		}
	})
}
