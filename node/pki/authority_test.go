package pki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"peerlink/node/nodetype"
)

// opensslConfig is an OpenSSL configuration with the same settings as the one that
// the reference generates for a node.
const opensslConfig = `
[ca]
default_ca = node
[node]
dir = .
database = $dir/index
serial = $dir/serial
new_certs_dir = $dir
certificate = $dir/root.pem
private_key = $dir/root.key
unique_subject = no
default_md = sha256
policy = names
[names]
organizationName = match
organizationalUnitName = supplied
serialNumber = supplied
[req]
utf8 = yes
string_mask = utf8only
prompt = no
default_md = sha256
distinguished_name = self
[self]
organizationName = "Swaptacular Nodes Registry"
organizationalUnitName = "%s"
serialNumber = "%s"
[root_cert]
basicConstraints = critical, CA:true, pathlen:1
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[root_req]
basicConstraints = critical, CA:true, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server_req]
basicConstraints = critical, CA:false
extendedKeyUsage = clientAuth, serverAuth
keyUsage = critical, digitalSignature, keyEncipherment
subjectKeyIdentifier = hash
[server_cert]
authorityKeyIdentifier = keyid:always
basicConstraints = critical, CA:false
extendedKeyUsage = clientAuth, serverAuth
keyUsage = critical, digitalSignature, keyEncipherment
subjectKeyIdentifier = hash
[peer_cert]
authorityKeyIdentifier = keyid:always
basicConstraints = critical, CA:true, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
nameConstraints = critical, permitted;dirName:peer
subjectKeyIdentifier = hash
nsComment = "Subnet: 00000a"
[peer]
organizationName = "Swaptacular Nodes Registry"
organizationalUnitName = "%s"
serialNumber = "%s"
`

// Certificates and requests that are made here are byte for byte those that OpenSSL
// makes with the reference's configuration from the same keys, serial numbers and
// dates. RSA signatures are deterministic, so they are compared too.
func TestSameBytesAsOpenSSL(t *testing.T) {
	aa := newNode(t, nodetype.AccountingAuthority, "1234abcd", testRSAKey())
	ca := newNode(t, nodetype.CreditorsAgent, "", testRSAKey2())
	dir := t.TempDir()
	writeFile(t, dir, "ca.cnf", fmt.Appendf(nil, opensslConfig, aa.id.Type.OU(), aa.id.ID, ca.id.Type.OU(), ca.id.ID))
	writeFile(t, dir, "peer.cnf", fmt.Appendf(nil, opensslConfig, ca.id.Type.OU(), ca.id.ID, "", "x"))
	writeFile(t, dir, "index", nil)
	for name, key := range map[string]crypto.Signer{"root.key": testRSAKey(), "peer.key": testRSAKey2(), "server.key": testRSAKey3()} {
		data, err := EncodeKey(key)
		check(t, err)
		writeFile(t, dir, name, data)
	}
	compare := func(what string, ours []byte, theirs []byte) {
		t.Helper()
		if !bytes.Equal(ours, theirs) {
			t.Errorf("%s: not the same bytes:\nours   %x\ntheirs %x", what, ours, theirs)
		}
	}
	request := func(what, config, section, key string, ours []byte, err error) []byte {
		t.Helper()
		check(t, err)
		mustOpenSSL(t, dir, "req", "-new", "-config", config, "-reqexts", section, "-key", key, "-out", "req.pem")
		data := readFile(t, dir, "req.pem")
		csr, err := ParseCSRPEM(data)
		check(t, err)
		compare(what, ours, csr.Raw)
		return data
	}
	sign := func(section string, serial *big.Int, ours *x509.Certificate, more ...string) *x509.Certificate {
		t.Helper()
		writeFile(t, dir, "serial", []byte(hex.EncodeToString(serial.FillBytes(make([]byte, 16)))+"\n"))
		const layout = "20060102150405Z"
		mustOpenSSL(t, dir, append([]string{"ca", "-batch", "-config", "ca.cnf", "-extensions", section, "-in", "req.pem", "-out", "cert.pem",
			"-startdate", ours.NotBefore.Format(layout), "-enddate", ours.NotAfter.Format(layout)}, more...)...)
		theirs, err := ParseCertificatePEM(readFile(t, dir, "cert.pem"))
		check(t, err)
		return theirs
	}

	der, err := NewCSR(aa.id, testRSAKey(), RootCSR)
	request("root request", "ca.cnf", "root_req", "root.key", der, err)
	serial, _ := new(big.Int).SetString("54739095C05DED5DDCB3084F065C349D", 16)
	root, err := SelfSign(aa.id, testRSAKey(), serial, testNow)
	check(t, err)
	compare("root", root.Raw, sign("root_cert", serial, root, "-selfsign").Raw)
	writeFile(t, dir, "root.pem", EncodeCertificatePEM(root))
	authority := Authority{root, testRSAKey()}

	der, err = NewCSR(aa.id, testRSAKey3(), ServerCSR)
	csr, err := ParseCSRPEM(request("server request", "ca.cnf", "server_req", "server.key", der, err))
	check(t, err)
	serial.Add(serial, big.NewInt(1))
	server, err := authority.SignServer(csr, serial, testNow, 365*24*time.Hour)
	check(t, err)
	compare("server", server.Raw, sign("server_cert", serial, server).Raw)

	der, err = NewCSR(ca.id, testRSAKey2(), RootCSR)
	request("peer's request", "peer.cnf", "root_req", "peer.key", der, err)
	// The top bit set: a serial number that needs one more byte in DER.
	serial, _ = new(big.Int).SetString("F4739095C05DED5DDCB3084F065C349D", 16)
	peer, err := authority.SignPeer(ca.Cert, "00000a", serial, testNow)
	check(t, err)
	compare("peer", peer.Raw, sign("peer_cert", serial, peer).Raw)

	// OpenSSL displays the peer certificate correctly, and verifies the whole chain.
	writeFile(t, dir, "peer.pem", EncodeCertificatePEM(peer))
	text := mustOpenSSL(t, dir, "x509", "-in", "peer.pem", "-noout", "-text")
	for _, want := range []string{
		"DirName:O = Swaptacular Nodes Registry, OU = Creditors Agents, serialNumber = " + ca.id.ID,
		"Subnet: 00000a", "CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign", "GMT\n            Not After : Mar 26 12:00:00 3026 GMT",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	clientServer := ca.server(t, testRSAKey3())
	writeFile(t, dir, "client.pem", EncodeCertificatePEM(clientServer))
	mustOpenSSL(t, dir, "verify", "-check_ss_sig", "-x509_strict", "-purpose", "sslclient", "-attime", fmt.Sprint(testNow.Unix()),
		"-trusted", "root.pem", "-untrusted", "peer.pem", "client.pem")
}

// Nodes with keys of every kind, and of every pair of types that can be peers, issue
// certificates that verify in both directions.
func TestSignAndVerify(t *testing.T) {
	p384 := mustKey(P384)
	for _, tt := range []struct {
		a, b   testNode // a issues the peer certificate
		subnet string
	}{
		{newNode(t, nodetype.AccountingAuthority, "1234abcd", ecKey(0)), newNode(t, nodetype.CreditorsAgent, "", testRSAKey2()), "00000a"},
		{newNode(t, nodetype.AccountingAuthority, "1234abcd", ecKey(0)), newNode(t, nodetype.DebtorsAgent, "", p384), "1234abcd00"},
		{newNode(t, nodetype.CreditorsAgent, "", p384), newNode(t, nodetype.AccountingAuthority, "00000001", ecKey(1)), ""},
		{newNode(t, nodetype.DebtorsAgent, "", testRSAKey2()), newNode(t, nodetype.AccountingAuthority, "ffffffff", ecKey(1)), ""},
	} {
		peer, err := tt.a.SignPeer(tt.b.Cert, tt.subnet, big.NewInt(9), testNow)
		if err != nil {
			t.Errorf("%v for %v: %v", tt.a.id, tt.b.id, err)
			continue
		}
		subnet, ok, err := SubnetComment(peer)
		if err != nil || subnet != tt.subnet || ok != (tt.subnet != "") {
			t.Errorf("%v for %v: subnet %q, %v, %v, want %q", tt.a.id, tt.b.id, subnet, ok, err, tt.subnet)
		}
		server := tt.b.server(t, ecKey(2))
		if !bytes.Equal(server.RawSubject, tt.b.Cert.RawSubject) || !bytes.Equal(peer.RawSubject, tt.b.Cert.RawSubject) {
			t.Errorf("%v: the subjects of the certificates have different bytes", tt.b.id)
		}
		// With a clock that is a few minutes behind.
		id, chain, err := VerifyClient([][]byte{server.Raw, peer.Raw}, tt.a.Cert, testNow.Add(-4*time.Minute))
		if err != nil || id != tt.b.id || len(chain) != 3 {
			t.Errorf("%v as a client of %v: got %v, %v", tt.b.id, tt.a.id, id, err)
		}
		if _, err := VerifyServer([][]byte{server.Raw}, tt.b.Cert, tt.b.id, testNow); err != nil {
			t.Errorf("%v as a server: %v", tt.b.id, err)
		}
		for _, cert := range []*x509.Certificate{tt.b.Cert, server, peer} {
			switch cert.SignatureAlgorithm {
			case x509.SHA256WithRSA, x509.ECDSAWithSHA256:
			default:
				t.Errorf("signature algorithm %v", cert.SignatureAlgorithm)
			}
		}
	}
}

// An authority signs only what the specification permits, and nothing that would not
// verify afterwards.
func TestSignRefuses(t *testing.T) {
	aa := newNode(t, nodetype.AccountingAuthority, "1234abcd", ecKey(0))
	ca := newNode(t, nodetype.CreditorsAgent, "", ecKey(1))
	da := newNode(t, nodetype.DebtorsAgent, "", ecKey(2))
	request := func(id Identity, key crypto.Signer) *x509.CertificateRequest {
		der, err := NewCSR(id, key, ServerCSR)
		check(t, err)
		csr, err := x509.ParseCertificateRequest(der)
		check(t, err)
		return csr
	}
	forged := request(aa.id, ecKey(3))
	forged.PublicKey = ecKey(4).Public()
	one, year := big.NewInt(1), 365*24*time.Hour
	server := func(a testNode, csr *x509.CertificateRequest, serial *big.Int, now time.Time, validity time.Duration) func() error {
		return func() error { _, err := a.SignServer(csr, serial, now, validity); return err }
	}
	peer := func(a testNode, root *x509.Certificate, subnet string) func() error {
		return func() error { _, err := a.SignPeer(root, subnet, one, testNow); return err }
	}
	self := func(id Identity, serial *big.Int) func() error {
		return func() error { _, err := SelfSign(id, ecKey(1), serial, testNow); return err }
	}
	stolen := certificate{subject: ca.Cert.RawSubject, issuer: ca.Cert.RawSubject, key: ecKey(5),
		extensions: []pkix.Extension{basicConstraintsCA(1), keyUsageCA()}}
	stolenRoot, err := x509.ParseCertificate(stolen.der(t))
	check(t, err)
	twin := newNode(t, nodetype.AccountingAuthority, "00000002", ecKey(1)) // has ca's key

	longest := new(big.Int).Sub(new(big.Int).Lsh(one, 159), one)
	if err := self(ca.id, longest)(); err != nil {
		t.Errorf("serial number of 159 bits: %v", err)
	}
	for _, tt := range []struct {
		what string
		do   func() error
		want string // part of the error
	}{
		{"server of another node", server(aa, request(ca.id, ecKey(3)), one, testNow, year), "for the node itself only"},
		{"server with the root key", server(aa, request(aa.id, ecKey(0)), one, testNow, year), "key of its own"},
		{"request without proof of possession", server(aa, forged, one, testNow, year), errSignature.Error()},
		{"no validity", server(aa, request(aa.id, ecKey(3)), one, testNow, 0), "positive"},
		{"already over", server(aa, request(aa.id, ecKey(3)), one, testNow, -year), "positive"},
		{"longer than the root", server(aa, request(aa.id, ecKey(3)), one, aa.Cert.NotAfter.Add(-time.Hour), year), "ends before"},
		{"root is over", server(aa, request(aa.id, ecKey(3)), one, aa.Cert.NotAfter.Add(time.Hour), year), "expired"},
		{"no serial number", server(aa, request(aa.id, ecKey(3)), nil, testNow, year), "expected a positive number of at most 159 bits"},
		{"serial number 0", server(aa, request(aa.id, ecKey(3)), new(big.Int), testNow, year), "expected a positive number of at most 159 bits"},
		{"negative serial number", self(ca.id, big.NewInt(-1)), "expected a positive number of at most 159 bits"},
		{"serial number of 160 bits", self(ca.id, new(big.Int).Lsh(one, 159)), "expected a positive number of at most 159 bits"},
		{"ID not derived from the key", self(Identity{nodetype.DebtorsAgent, agentID}, one), "not derived"},
		{"no identity", self(Identity{}, one), ErrNotIdentity.Error()},
		{"another node's key", server(testNode{Authority{aa.Cert, ecKey(3)}, aa.id}, request(aa.id, ecKey(3)), one, testNow, year), "private key is not"},
		{"no key", server(testNode{Authority{aa.Cert, nil}, aa.id}, request(aa.id, ecKey(3)), one, testNow, year), "needs"},
		{"agent with agent", peer(ca, da.Cert, ""), "can not become peers"},
		{"itself", peer(aa, aa.Cert, ""), "can not become peers"},
		{"same key", peer(ca, twin.Cert, ""), "same root key"},
		{"stolen ID", peer(aa, stolenRoot, "00000a"), "not derived"},
		{"not a root", peer(aa, ca.server(t, ecKey(3)), "00000a"), ""},
		{"no subnet", peer(aa, ca.Cert, ""), errSubnet.Error()},
		{"subnet of a debtors agent", peer(aa, ca.Cert, "1234abcd00"), errSubnet.Error()},
		{"subnet of a creditors agent", peer(aa, da.Cert, "00000a"), errSubnet.Error()},
		{"subnet of another authority", peer(aa, da.Cert, "1234abce00"), errSubnet.Error()},
		{"subnet from an agent", peer(ca, aa.Cert, "00000a"), errSubnet.Error()},
		{"subnet with a newline", peer(aa, ca.Cert, "0000a\n"), errSubnet.Error()},
	} {
		if err := tt.do(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want ... %s ...", tt.what, err, tt.want)
		}
	}
}
