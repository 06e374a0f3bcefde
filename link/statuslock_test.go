package link

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"peerlink/node"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// The status can be read while a peer connects that is not registered: each locks the peer and its statistics, and
// neither waits for the other for ever.
func TestStatusWhileUnregisteredPeerConnects(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{PublicKey: key.Public(), RawSubjectPublicKeyInfo: []byte("key")}
	id := pki.Identity{Type: nodetype.CreditorsAgent, ID: "00000000000000000000000000000001"}
	a := &acceptor{shared: &shared{peers: newPeerSet(0, newUnstoredLimits(nil))}}
	p := a.peers.getOrAdd(id.ID)
	p.lastContent.Store(&node.Peer{Identity: id, Root: root}) // signed only
	p.out["queue"] = new(tracker)
	p.stats.recordError(outgoing, errors.New("an error that still matters"))

	const rounds = 2000
	done := make(chan string, 2)
	go func() {
		for range rounds {
			p.status(a.shared, time.Now())
		}
		done <- "status"
	}()
	go func() {
		for range rounds {
			a.register(new(receiver), id, []*x509.Certificate{root, root}, func() {})
		}
		done <- "register"
	}()
	limit := time.After(time.Minute)
	for range 2 {
		select {
		case <-done:
		case <-limit:
			t.Fatal("reading the status and rejecting a connection wait for each other")
		}
	}
	if st := p.status(a.shared, time.Now()); st.LastContact == nil || st.LastError == "" {
		t.Errorf("%+v: expected the contact and the error", st)
	}
}
