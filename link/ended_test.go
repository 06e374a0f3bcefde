package link_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// connections waits until a node has this number of connections with its peer.
func connections(t *testing.T, n, peer *linktest.Node, want int) {
	t.Helper()
	linktest.Eventually(t, "connections", func() error {
		if list := statusOf(t, n, peer).Connections; len(list) != want {
			return fmt.Errorf("%d connections, want %d: %+v\n%s", len(list), want, list, n.Log)
		}
		return nil
	})
}

// A connection ends when the first of its certificates expires, in both directions,
// whichever side owns it and whichever side detects it. Both logs say why. When the
// certificates are valid again, every message is delivered once.
func TestConnectionsEndWithCertificates(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name                  string
		authoritys, others    time.Duration // validity of their server certificates
		role, peerLog, ownLog string
	}{
		{"our own", 100 * day, 365 * day, "server", "The other side's server certificate has ended", "this node's server certificate has ended"},
		{"the peer's", 365 * day, 100 * day, "peer_server", "Your server certificate has ended", "the peer's server certificate has ended"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			authority, other := linktest.New(t, aa), linktest.New(t, ca)
			nodetest.Peer(t, authority.Node, other.Node)
			authority.WriteServerCert(t, authority.CertFile, authority.KeyFile, tt.authoritys)
			other.WriteServerCert(t, other.CertFile, other.KeyFile, tt.others)
			now := new(clock)
			authority.Config.Now = now.Now
			authority.Start()
			other.Start()
			exchange(t, authority, other, 1)
			connections(t, authority, other, 2)

			now.set(101 * day)
			connections(t, authority, other, 0)
			says(t, authority, "a certificate of the connection has ended", 2)
			says(t, authority, "msg=receiving", 1) // the connections end once, and are not made again
			says(t, authority, "msg=sending", 1)
			linktest.Eventually(t, "the reason in the peer's log", func() error {
				if text := other.Log.String(); !strings.Contains(text, tt.peerLog) {
					return errors.New(text)
				}
				return nil
			})
			if text := authority.Log.String(); !strings.Contains(text, tt.ownLog) {
				t.Errorf("%q is not in the log:\n%s", tt.ownLog, text)
			}
			if s := statusOf(t, other, authority); s.Counts.SetAside != 0 {
				t.Errorf("set aside: %d", s.Counts.SetAside)
			}
			now.set(0)
			exchange(t, authority, other, 2)
			connections(t, authority, other, 2)
			once(t, authority, 2)
			once(t, other, 2)
		})
	}
}

// once checks that a node with an embedded broker has received this number of messages
// in all.
func once(t *testing.T, n *linktest.Node, want int64) {
	t.Helper()
	stats, err := n.Store.Stats(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range stats.Queues {
		if q.Name == n.Identity().Type.Inbox() && int64(q.Total) != want {
			t.Errorf("%v has received %d messages, want %d", n.Identity(), q.Total, want)
		}
	}
}

// With a real clock, a certificate that is valid for some seconds ends its connections
// in both directions, and a new one restores them.
func TestShortLivedCertificate(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	authority.Start()
	validity := 5 * time.Second
	other.WriteServerCert(t, other.CertFile, other.KeyFile, validity)
	issued := time.Now()
	other.Start()
	exchange(t, authority, other, 1)
	connections(t, other, authority, 2)
	if time.Since(issued) > validity {
		t.Skip("skipped: this machine is too slow for a certificate of 5 s")
	}
	connections(t, other, authority, 0)
	connections(t, authority, other, 0)
	if lasted := time.Since(issued); lasted > validity+5*time.Second {
		t.Errorf("the connections lasted %v", lasted)
	}
	other.WriteServerCert(t, other.CertFile, other.KeyFile, time.Hour)
	exchange(t, authority, other, 2)
}

// doorman is a listener that refuses new connections while it is shut, and keeps the
// existing ones.
type doorman struct {
	net.Listener
	shut atomic.Bool
}

func (d *doorman) Accept() (net.Conn, error) {
	for {
		conn, err := d.Listener.Accept()
		if err != nil || !d.shut.Load() {
			return conn, err
		}
		conn.Close()
	}
}

// When a node's certificate is renewed, a connection with the new one is opened first.
// While that fails, the old connection stays in use. No message is lost or repeated.
func TestRenewedCertificateOpensFirst(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	door := new(doorman)
	authority.Wrap = func(l net.Listener) net.Listener { door.Listener = l; return door }
	authority.Start()
	other.Start()
	other.Put(authority, numbered(t, other, authority, 0, 10)...)
	authority.Take(10)

	door.shut.Store(true)
	other.WriteServerCert(t, other.CertFile, other.KeyFile, 100*day)
	waitForLog(t, other, "no connection with the renewed server certificate, the old connection stays")
	other.Put(authority, numbered(t, other, authority, 10, 10)...)
	authority.Take(10)
	says(t, other, "msg=sending", 1)

	door.shut.Store(false)
	says(t, other, "msg=sending", 2)
	sent := 20
	for range 3 { // under load
		other.Put(authority, numbered(t, other, authority, sent, 2000)...)
		other.WriteServerCert(t, other.CertFile, other.KeyFile, 100*day)
		authority.Take(2000)
		sent += 2000
	}
	says(t, other, "msg=sending", 5)
	once(t, authority, int64(sent))
	if failures := statusOf(t, other, authority).Counts.Failures; failures != 0 {
		t.Errorf("%d failures of the link", failures)
	}
}
