package pki

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"peerlink/node/nodetype"
)

// peers are an accounting authority and two of its peers, with the peer certificates
// that it has issued to them.
type peers struct {
	aa, ca, da         testNode
	peerCA, peerDA     *x509.Certificate // issued by aa
	serverCA, serverDA *x509.Certificate // with ecKey(3)
	serverAA           *x509.Certificate
	caFromOther        *x509.Certificate // issued to ca by another authority
}

func newPeers(t testing.TB) peers {
	p := peers{
		aa: newNode(t, nodetype.AccountingAuthority, "1234abcd", ecKey(0)),
		ca: newNode(t, nodetype.CreditorsAgent, "", ecKey(1)),
		da: newNode(t, nodetype.DebtorsAgent, "", ecKey(2)),
	}
	other := newNode(t, nodetype.AccountingAuthority, "00000001", ecKey(4))
	var err error
	p.peerCA, err = p.aa.SignPeer(p.ca.Cert, "00000a", big.NewInt(11), testNow)
	check(t, err)
	p.peerDA, err = p.aa.SignPeer(p.da.Cert, "1234abcd00", big.NewInt(12), testNow)
	check(t, err)
	p.caFromOther, err = other.SignPeer(p.ca.Cert, "00000a", big.NewInt(13), testNow)
	check(t, err)
	p.serverCA = p.ca.server(t, ecKey(3))
	p.serverDA = p.da.server(t, ecKey(3))
	p.serverAA = p.aa.server(t, ecKey(3))
	return p
}

// issue makes a certificate for a link that has a fault.
func issue(t testing.TB, subject, issuer []byte, signer crypto.Signer, extensions ...pkix.Extension) *x509.Certificate {
	t.Helper()
	key := ecKey(3)
	if len(extensions) > 0 && extensions[0].Id.Equal(oidBasicConstraints) && len(extensions[0].Value) > 2 {
		key = ecKey(5) // an authority's key is ecKey(5), a server's ecKey(3)
	}
	cert, err := x509.ParseCertificate(certificate{subject: subject, issuer: issuer, key: key, signer: signer, extensions: extensions}.der(t))
	check(t, err)
	return cert
}

// A client is accepted only with the chain from this node's root, over the peer
// certificate that this node has issued, to a server certificate of that peer, and
// its identity is that of the peer.
func TestVerifyClient(t *testing.T) {
	p := newPeers(t)
	aa, ca, da := p.aa.Cert.RawSubject, p.ca.Cert.RawSubject, p.da.Cert.RawSubject
	bc, ku := basicConstraintsLeaf(), keyUsageServer()
	// A peer certificate from the authority, too, but without the limits of the real
	// one: an operator may have made it with other tools.
	loose := func(subject []byte, extensions ...pkix.Extension) *x509.Certificate {
		cert, err := x509.ParseCertificate(certificate{subject: subject, issuer: aa, key: ecKey(1), signer: ecKey(0),
			extensions: append([]pkix.Extension{caAnyDepth(), keyUsageCA()}, extensions...)}.der(t))
		check(t, err)
		return cert
	}
	for _, tt := range []struct {
		what  string
		shown []*x509.Certificate
		want  error
	}{
		{"creditors agent", []*x509.Certificate{p.serverCA, p.peerCA}, nil},
		{"with our root", []*x509.Certificate{p.serverCA, p.peerCA, p.aa.Cert}, nil},
		{"with more than needed", []*x509.Certificate{p.serverCA, p.ca.Cert, p.caFromOther, p.peerDA, p.peerCA}, nil},
		{"with a loose peer certificate", []*x509.Certificate{p.serverCA, loose(ca)}, nil},
		{"no peer certificate", []*x509.Certificate{p.serverCA}, ruleIssuer},
		{"peer certificate of another authority", []*x509.Certificate{p.serverCA, p.caFromOther}, ruleIssuer},
		{"peer certificate of another peer", []*x509.Certificate{p.serverCA, p.peerDA}, ruleIssuer},
		{"its own root", []*x509.Certificate{p.serverCA, p.ca.Cert}, ruleIssuer},
		{"peer certificate alone", []*x509.Certificate{p.peerCA}, ruleCA},
		{"wrong order", []*x509.Certificate{p.peerCA, p.serverCA}, ruleCA},
		{"our own server", []*x509.Certificate{p.serverAA}, ruleSubject},
		{"our own root", []*x509.Certificate{p.aa.Cert}, ruleCA},
		{"our name, signed by a peer", []*x509.Certificate{issue(t, aa, ca, ecKey(1), bc, ku), p.peerCA}, ruleNameConstraints},
		{"another peer's name, signed by a peer", []*x509.Certificate{issue(t, da, ca, ecKey(1), bc, ku), p.peerCA}, ruleNameConstraints},
		{"another peer's name and issuer", []*x509.Certificate{issue(t, da, da, ecKey(1), bc, ku), p.peerDA, p.peerCA}, ruleIssuer},
		{"another peer's name under a loose certificate", []*x509.Certificate{issue(t, da, ca, ecKey(1), bc, ku), loose(ca)}, ruleChain},
		{"our name under a loose certificate", []*x509.Certificate{issue(t, aa, ca, ecKey(1), bc, ku), loose(ca)}, ruleSubject},
		{"a name that is not a node's", []*x509.Certificate{issue(t, nameB, ca, ecKey(1), bc, ku), loose(ca)}, ruleSubject},
		{"signed by our root in a peer's name", []*x509.Certificate{issue(t, ca, aa, ecKey(0), bc, ku)}, ruleChain},
		{"authority of the peer", []*x509.Certificate{issue(t, ca, ca, ecKey(5), bc, ku), issue(t, ca, ca, ecKey(1), caAnyDepth(), keyUsageCA()), p.peerCA}, ruleIssuer},
		{"authority of the peer under a loose certificate", []*x509.Certificate{issue(t, ca, ca, ecKey(5), bc, ku), issue(t, ca, ca, ecKey(1), caAnyDepth(), keyUsageCA()), loose(ca)}, ruleIssuer},
		{"an authority as a client", []*x509.Certificate{issue(t, ca, ca, ecKey(1), basicConstraintsCA(0), keyUsage(0b1000_0100)), loose(ca)}, ruleCA},
		{"for servers only", []*x509.Certificate{issue(t, ca, ca, ecKey(1), bc, ku, serverAuthOnly()), p.peerCA}, ruleKeyUsage},
		{"for encryption only", []*x509.Certificate{issue(t, ca, ca, ecKey(1), bc, keyUsage(0b0010_0000)), p.peerCA}, ruleKeyUsage},
		{"for nothing", []*x509.Certificate{issue(t, ca, ca, ecKey(1), bc, keyUsage(0)), p.peerCA}, ruleKeyUsage},
		{"no extensions", []*x509.Certificate{issue(t, ca, ca, ecKey(1)), p.peerCA}, nil},
		{"nothing", nil, ruleChain},
	} {
		id, chain, err := VerifyClient(raw(tt.shown), p.aa.Cert, testNow)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, %v, want %v", tt.what, id, err, tt.want)
		}
		if err == nil && (id != p.ca.id || len(chain) != 3 || !chain[0].Equal(tt.shown[0]) || !chain[2].Equal(p.aa.Cert)) {
			t.Errorf("%s: got %v, %d certificates", tt.what, id, len(chain))
		}
		if err != nil && (id != Identity{} || chain != nil) {
			t.Errorf("%s: got %v with an error", tt.what, id)
		}
	}
	// A root without a path length, which the specification allows, under which
	// crypto/x509 would let a peer have authorities of its own.
	deepRoot, err := x509.ParseCertificate(certificate{subject: aa, issuer: aa, key: ecKey(0), extensions: []pkix.Extension{caAnyDepth(), keyUsageCA()}}.der(t))
	check(t, err)
	for _, tt := range []struct {
		shown []*x509.Certificate
		want  error
	}{
		{[]*x509.Certificate{p.serverCA, loose(ca)}, nil},
		{[]*x509.Certificate{issue(t, ca, ca, ecKey(5), bc, ku), issue(t, ca, ca, ecKey(1), caAnyDepth(), keyUsageCA()), loose(ca)}, ruleIssuer},
	} {
		if id, _, err := VerifyClient(raw(tt.shown), deepRoot, testNow); !errors.Is(err, tt.want) {
			t.Errorf("%d certificates under a root without a path length: got %v, %v, want %v", len(tt.shown), id, err, tt.want)
		}
	}
	shown := raw([]*x509.Certificate{p.serverCA, p.peerCA})
	for _, now := range []time.Time{testNow.AddDate(1, 0, 1), testNow.AddDate(0, 0, -1)} {
		if _, _, err := VerifyClient(shown, p.aa.Cert, now); !errors.Is(err, RuleDates) {
			t.Errorf("at %v: got %v, want %v", now, err, RuleDates)
		}
	}
	if id, _, err := VerifyClient(raw([]*x509.Certificate{p.serverDA, p.peerDA}), p.aa.Cert, testNow); err != nil || id != p.da.id {
		t.Errorf("debtors agent: got %v, %v", id, err)
	}
}

// A server is accepted as the expected peer only with a certificate that the peer's
// root key has signed, whatever other certificates it sends.
func TestVerifyServer(t *testing.T) {
	p := newPeers(t)
	ca, aa := p.ca.Cert.RawSubject, p.aa.Cert.RawSubject
	bc, ku := basicConstraintsLeaf(), keyUsageServer()
	for _, tt := range []struct {
		what  string
		shown []*x509.Certificate
		want  error
	}{
		{"the peer", []*x509.Certificate{p.serverCA}, nil},
		{"with its root", []*x509.Certificate{p.serverCA, p.ca.Cert}, nil},
		{"with the peer certificate for clients", []*x509.Certificate{p.serverCA, p.peerCA}, nil},
		{"another peer", []*x509.Certificate{p.serverDA, p.peerDA}, ruleIssuer},
		{"ourselves", []*x509.Certificate{p.serverAA}, ruleIssuer},
		{"the peer's name, signed with another key", []*x509.Certificate{issue(t, ca, ca, ecKey(4), bc, ku)}, ruleIssuer},
		{"the peer's name, signed by us", []*x509.Certificate{issue(t, ca, aa, ecKey(0), bc, ku), p.aa.Cert}, ruleIssuer},
		{"another name, signed by the peer", []*x509.Certificate{issue(t, aa, ca, ecKey(1), bc, ku)}, ruleSubject},
		{"not a node's name", []*x509.Certificate{issue(t, nameB, ca, ecKey(1), bc, ku)}, ruleSubject},
		{"the peer's root itself", []*x509.Certificate{p.ca.Cert}, ruleCA},
		{"an authority below the peer", []*x509.Certificate{issue(t, ca, ca, ecKey(5), bc, ku), issue(t, ca, ca, ecKey(1), caAnyDepth(), keyUsageCA())}, ruleIssuer},
		{"an authority as a server", []*x509.Certificate{issue(t, ca, ca, ecKey(1), caAnyDepth(), keyUsage(0b1000_0100))}, ruleCA},
		{"for clients only", []*x509.Certificate{issue(t, ca, ca, ecKey(1), bc, ku, clientAuthOnly())}, ruleKeyUsage},
		{"for encryption only", []*x509.Certificate{issue(t, ca, ca, ecKey(1), bc, keyUsage(0b0010_0000))}, ruleKeyUsage},
		{"nothing", nil, ruleChain},
	} {
		chain, err := VerifyServer(raw(tt.shown), p.ca.Cert, p.ca.id, testNow)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.what, err, tt.want)
		}
		if err == nil && (len(chain) != 2 || !chain[0].Equal(tt.shown[0]) || !chain[1].Equal(p.ca.Cert)) {
			t.Errorf("%s: got %d certificates", tt.what, len(chain))
		}
	}
	if _, err := VerifyServer(raw([]*x509.Certificate{p.serverCA}), p.serverCA, p.ca.id, testNow); !errors.Is(err, ruleChain) {
		t.Errorf("a server certificate pinned in place of the root: got %v, want %v", err, ruleChain)
	}
	if _, err := VerifyServer(raw([]*x509.Certificate{p.serverCA}), p.ca.Cert, p.da.id, testNow); !errors.Is(err, ruleSubject) {
		t.Errorf("another peer was expected: got %v, want %v", err, ruleSubject)
	}
	if _, err := VerifyServer(raw([]*x509.Certificate{p.serverCA}), p.ca.Cert, p.ca.id, testNow.AddDate(2, 0, 0)); !errors.Is(err, RuleDates) {
		t.Errorf("got %v, want %v", err, RuleDates)
	}
}

// Certificates from the network can be any bytes; their number and size are checked
// before they are parsed.
func TestShownLimits(t *testing.T) {
	p := newPeers(t)
	huge := append([][]byte{p.serverCA.Raw}, make([]byte, maxChainBytes))
	var many [][]byte
	for range maxCertificates + 1 {
		many = append(many, p.serverCA.Raw)
	}
	for what, tt := range map[string]struct {
		shown [][]byte
		want  error
	}{
		"too many":              {many, ruleLimit},
		"too large":             {huge, ruleLimit},
		"not DER":               {[][]byte{[]byte("rubbish")}, ruleFormat},
		"not DER as the second": {[][]byte{p.serverCA.Raw, nil}, ruleFormat},
		"cut off":               {[][]byte{p.serverCA.Raw[:100]}, ruleFormat},
	} {
		if _, _, err := VerifyClient(tt.shown, p.aa.Cert, testNow); !errors.Is(err, tt.want) {
			t.Errorf("client, %s: got %v, want %v", what, err, tt.want)
		}
		_, err := VerifyServer(tt.shown, p.ca.Cert, p.ca.id, testNow)
		if !errors.Is(err, tt.want) {
			t.Errorf("server, %s: got %v, want %v", what, err, tt.want)
		}
		if what == "not DER as the second" && !strings.Contains(err.Error(), "certificate 2 of 2") {
			t.Errorf("server, %s: got %v, want an error about certificate 2 of 2", what, err)
		}
	}
}

// Two nodes authenticate each other over TLS 1.3 with the chains that the
// specification requires, without the default verification of crypto/tls.
func TestTLS(t *testing.T) {
	p := newPeers(t)
	var seen Identity
	serverConfig := &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{{Certificate: [][]byte{p.serverAA.Raw}, PrivateKey: ecKey(3)}},
		ClientAuth:   tls.RequireAnyClientCert,
		VerifyPeerCertificate: func(shown [][]byte, _ [][]*x509.Certificate) (err error) {
			seen, _, err = VerifyClient(shown, p.aa.Cert, testNow)
			return err
		},
	}
	// dial returns the errors of both sides' handshakes.
	dial := func(expected testNode, shown ...*x509.Certificate) (serverErr, clientErr error) {
		a, b := net.Pipe()
		server, client := tls.Server(a, serverConfig), tls.Client(b, &tls.Config{
			MinVersion:         tls.VersionTLS13,
			Certificates:       []tls.Certificate{{Certificate: raw(shown), PrivateKey: ecKey(3)}},
			InsecureSkipVerify: true, // of names; VerifyServer does the rest
			VerifyPeerCertificate: func(shown [][]byte, _ [][]*x509.Certificate) error {
				_, err := VerifyServer(shown, expected.Cert, expected.id, testNow)
				return err
			},
		})
		var wg sync.WaitGroup
		wg.Go(func() {
			defer a.Close()
			serverErr = server.HandshakeContext(t.Context())
		})
		wg.Go(func() {
			defer b.Close()
			if clientErr = client.HandshakeContext(t.Context()); clientErr == nil {
				// The server's handshake ends when the client reads what the server
				// has sent.
				_, _ = io.Copy(io.Discard, b)
			}
		})
		wg.Wait()
		return serverErr, clientErr
	}
	if serverErr, clientErr := dial(p.aa, p.serverCA, p.peerCA); serverErr != nil || clientErr != nil || seen != p.ca.id {
		t.Errorf("got %v, %v, %v, want %v", seen, serverErr, clientErr, p.ca.id)
	}
	if serverErr, _ := dial(p.aa, p.serverCA); !errors.Is(serverErr, ruleIssuer) {
		t.Errorf("without a peer certificate: got the server's error %v, want %v", serverErr, ruleIssuer)
	}
	if _, clientErr := dial(p.ca, p.serverCA, p.peerCA); !errors.Is(clientErr, ruleIssuer) {
		t.Errorf("another server than the expected one: got the client's error %v, want %v", clientErr, ruleIssuer)
	}
}

// BenchmarkVerifyClient measures the cost of verification for one accepted
// connection, with RSA keys of 3072 bits only.
func BenchmarkVerifyClient(b *testing.B) {
	aa := newNode(b, nodetype.AccountingAuthority, "1234abcd", testRSAKey())
	ca := newNode(b, nodetype.CreditorsAgent, "", mustRSA(3072))
	peer, err := aa.SignPeer(ca.Cert, "00000a", big.NewInt(11), testNow)
	check(b, err)
	shown := raw([]*x509.Certificate{ca.server(b, mustRSA(3072)), peer})
	for b.Loop() {
		if _, _, err := VerifyClient(shown, aa.Cert, testNow); err != nil {
			b.Fatal(err)
		}
	}
}

func raw(certs []*x509.Certificate) [][]byte {
	var ders [][]byte
	for _, cert := range certs {
		ders = append(ders, cert.Raw)
	}
	return ders
}
