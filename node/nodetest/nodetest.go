// Package nodetest makes nodes and peers for tests. To be fast, root keys are ECDSA
// keys, unless a test passes another key.
package nodetest

import (
	"context"
	"crypto"
	"os"
	"path/filepath"
	"testing"
	"time"

	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// Node is a node made for a test.
type Node struct {
	*node.Dir
	Key crypto.Signer // the root key
}

// AAID is the node ID of the accounting authorities that [New] makes.
const AAID = "1234abcd"

// New makes a node in a temporary directory, with an ECDSA root key and one server
// address.
func New(t testing.TB, kind nodetype.Type, server string) *Node {
	t.Helper()
	key, err := pki.GenerateKey(pki.P256)
	if err != nil {
		t.Fatal(err)
	}
	return NewWithKey(t, t.TempDir(), kind, server, key)
}

// NewWithKey makes a node in the given directory with the given root key.
func NewWithKey(t testing.TB, dir string, kind nodetype.Type, server string, key crypto.Signer) *Node {
	t.Helper()
	o := node.InitOptions{Type: kind, Servers: []string{server}, Key: key}
	if !kind.IDDerived() {
		o.ID = AAID
	}
	d, err := node.Init(context.Background(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return &Node{d, key}
}

// Bundle makes the node's info-bundle, and returns the path of its file.
func (n *Node) Bundle(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bundle.zip")
	if err := n.CreateBundle(context.Background(), path, n.Key); err != nil {
		t.Fatal(err)
	}
	return path
}

// ReadBundle reads an info-bundle file.
func ReadBundle(t testing.TB, path string) *infobundle.Bundle {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := infobundle.Read(data, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Sign makes the node of an info-bundle a peer of n, and returns the result of
// [node.Dir.SignPeer].
func (n *Node) Sign(t testing.TB, bundle string) *node.SignResult {
	t.Helper()
	res, err := n.SignPeer(context.Background(), ReadBundle(t, bundle), func() (crypto.Signer, error) { return n.Key, nil })
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// Peer makes two nodes peers of each other, registered on both sides.
func Peer(t testing.TB, a, b *Node) {
	t.Helper()
	for _, p := range [][2]*Node{{a, b}, {b, a}} {
		p[0].Sign(t, p[1].Bundle(t))
	}
	for _, p := range [][2]*Node{{a, b}, {b, a}} {
		cert, err := os.ReadFile(filepath.Join(p[0].Path(), "peers", p[1].Identity().ID, "peercert.crt"))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := p[1].RegisterPeer(context.Background(), cert); err != nil {
			t.Fatal(err)
		}
	}
}

// ServerCert issues a server certificate, and returns the paths of the certificate
// and of its key.
func (n *Node) ServerCert(t testing.TB) (certFile, keyFile string) {
	t.Helper()
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	n.WriteServerCert(t, certFile, keyFile, 365*24*time.Hour)
	return certFile, keyFile
}

// WriteServerCert issues a server certificate, and writes it and its key to the given
// files.
func (n *Node) WriteServerCert(t testing.TB, certFile, keyFile string, validity time.Duration) {
	t.Helper()
	n.WriteServerCertOf(t, pki.P256, certFile, keyFile, validity)
}

// WriteServerCertOf is like [Node.WriteServerCert], with a key of the given kind.
func (n *Node) WriteServerCertOf(t testing.TB, kind pki.KeyKind, certFile, keyFile string, validity time.Duration) {
	t.Helper()
	key, err := pki.GenerateKey(kind)
	if err != nil {
		t.Fatal(err)
	}
	der, err := pki.NewCSR(n.Identity(), key, pki.ServerCSR)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.ParseCSRPEM(pki.EncodeCSRPEM(der))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := n.SignServer(context.Background(), n.Key, csr, validity)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keyFile, keyPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(certFile, pki.EncodeCertificatePEM(cert), 0o644); err != nil {
		t.Fatal(err)
	}
}
