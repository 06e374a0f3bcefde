package link_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node"
	"peerlink/node/nodetest"
	"peerlink/node/pki"
)

// steal returns the node with copies of its server certificate and key, as somebody has who has stolen them.
func steal(t *testing.T, n *linktest.Node) *linktest.Node {
	t.Helper()
	thief, dir := *n, t.TempDir()
	thief.CertFile, thief.KeyFile = filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	for from, to := range map[string]string{n.CertFile: thief.CertFile, n.KeyFile: thief.KeyFile} {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &thief
}

// readCert reads the certificate in a file.
func readCert(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	pem, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.ParseCertificatePEM(pem)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// keyOf returns the fingerprint of a node's server key.
func keyOf(t *testing.T, n *linktest.Node) string {
	t.Helper()
	return pki.Fingerprint(readCert(t, n.CertFile).PublicKey)
}

// revokedKey is why a connection with a revoked key is refused.
const revokedKey = "has been revoked"

// A thief of the server key and its owner are connected at the same time. As soon as a peer has the info-bundle that
// revokes the key, the thief's connection ends and no other one is accepted, while the owner's messages pass, both ways.
// No other info-bundle makes the key valid again: not the older one, and not a newer one without the key.
func TestStolenServerKey(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	outBecomes(t, authority, other, link.VerdictLinked, "")
	before := other.Bundle(t)
	thief := steal(t, other)
	stolen := session(t, thief, authority)

	other.WriteServerCert(t, other.CertFile, other.KeyFile, time.Hour)
	waitForLog(t, other, "new server certificate")
	if _, err := other.RevokeServerKey(t.Context(), keyOf(t, thief)); err != nil {
		t.Fatal(err)
	}
	authority.Sign(t, other.Bundle(t))
	if _, err := io.Copy(io.Discard, stolen); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the thief's connection stays open")
	}
	refused := func(when string) {
		t.Helper()
		linktest.Eventually(t, when, func() error { return refusesBecause(authority, thief, revokedKey) })
		for from, to := range map[*linktest.Node]*linktest.Node{authority: other, other: authority} {
			from.Put(to, linktest.Message(t, from, to, 1))
			to.Take(1)
		}
		outBecomes(t, other, authority, link.VerdictLinked, "")
		inBecomes(t, authority, other, link.VerdictLinked, "")
	}
	refused("after the revocation")

	authority.Sign(t, before)
	refused("after the older info-bundle")
	if err := os.Remove(filepath.Join(other.Path(), "nodeinfo", "revoked-keys.txt")); err != nil {
		t.Fatal(err)
	}
	if res := authority.Sign(t, other.Bundle(t)); !res.Updated {
		t.Fatal("the newer info-bundle was not taken over")
	}
	refused("after a newer info-bundle without the key")

	// As a server, the thief is refused too.
	pair, err := tls.LoadX509KeyPair(thief.CertFile, thief.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	other.WriteStompTOML(serveEach(t, "127.0.0.1:0", func(c net.Conn) {
		io.Copy(io.Discard, tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert}))
	}))
	authority.Sign(t, other.Bundle(t))
	outBecomes(t, authority, other, link.VerdictWrongCertificate, "revoked by its owner")
}

// Whoever has a revoked key does not make a link that this node has not registered yet look as if the peer had.
func TestStolenServerKeyOfUnregisteredPeer(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	other.Sign(t, authority.Bundle(t))
	thief := steal(t, other)
	other.WriteServerCert(t, other.CertFile, other.KeyFile, time.Hour)
	if _, err := other.RevokeServerKey(t.Context(), keyOf(t, thief)); err != nil {
		t.Fatal(err)
	}
	authority.Sign(t, other.Bundle(t))
	register(t, other, authority)
	authority.Start()
	inBecomes(t, authority, other, link.VerdictSigned, "")
	if err := refusesBecause(authority, thief, revokedKey); err != nil {
		t.Fatal(err)
	}
	if in := authority.Service.Status().Peers[0].In; in.Verdict != link.VerdictSigned {
		t.Errorf("the thief has changed the state to %+v", in)
	}
}

// A service ends when its own key is revoked, and does not start with it, so that an owner notices what peers
// refuse.
func TestOwnRevokedKey(t *testing.T) {
	t.Parallel()
	n := linktest.New(t, aa)
	cert, err := link.LoadCertificate(n.Dir, n.CertFile, n.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", n.Addr)
	if err != nil {
		t.Fatal(err)
	}
	cfg := n.Config
	cfg.Dir, cfg.Certificate, cfg.Log = n.Dir, cert, n.Log.Logger()
	cfg.Serving = func() {
		if _, err := n.RevokeServerKey(context.Background(), keyOf(t, n)); err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), linktest.Timeout)
	defer cancel()
	if err := link.New(cfg).Run(ctx, listener); !errors.Is(err, link.ErrOwnKeyRevoked) {
		t.Errorf("the service ended with %v", err)
	}
	if _, err := link.LoadCertificate(n.Dir, n.CertFile, n.KeyFile); !errors.Is(err, link.ErrOwnKeyRevoked) {
		t.Errorf("the certificate was loaded: %v", err)
	}
	n.WriteServerCert(t, n.CertFile, n.KeyFile, time.Hour)
	if _, err := link.LoadCertificate(n.Dir, n.CertFile, n.KeyFile); err != nil {
		t.Errorf("another key: %v", err)
	}
}

// A key is revoked by itself, and not by one of its certificates.
func TestRevokedByKey(t *testing.T) {
	t.Parallel()
	n := nodetest.New(t, aa, "aa.example.com:1234")
	certFile, _ := n.ServerCert(t)
	cert := readCert(t, certFile)
	revoked := node.RevokedKeys{pki.Fingerprint(cert.PublicKey): {}}
	again := *cert
	again.Raw = nil
	if !revoked.Has(&again) || revoked.Has(n.Root()) {
		t.Error("the key is not what is compared")
	}
}
