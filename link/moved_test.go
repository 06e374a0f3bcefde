package link_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node/infobundle"
	"peerlink/node/nodetest"
	"peerlink/stomp"
)

// A node that moves when all its old addresses and all URLs that its peer knows are dead is found by
// what it announces when it connects to the peer, and messages that waited for it are delivered. The
// peer need not have tried to send anything before.
func TestMoverAnnouncesItself(t *testing.T) {
	t.Parallel()
	for _, resting := range []bool{false, true} {
		t.Run(fmt.Sprint("resting=", resting), func(t *testing.T) {
			t.Parallel()
			m, next := newMover(t, impatient), newPlace(t, httptest.NewTLSServer)
			m.other.Config.Follow.Roots = next.trust()
			if resting {
				m.other.Config.IdleTimeout = 20 * time.Millisecond
			}
			m.other.Start()
			m.send(1)
			m.receive(1)
			if resting {
				linktest.Eventually(t, "the link to rest", func() error {
					if out := onlyPeer(m.other).Out; out.Verdict != link.VerdictResting {
						return fmt.Errorf("it is %+v", out)
					}
					return nil
				})
			}
			old := m.authority.Addr
			if err := m.authority.Stop(); err != nil {
				t.Fatal(err)
			}
			m.web.Close()
			refuse(t, old)

			m.authority.Addr = linktest.FreeAddress(t)
			writeManifest(t, m.authority, m.authority.Addr, next.URL)
			next.put(t, m.authority.Bundle(t))
			if !resting {
				m.send(2)
			}
			m.authority.Start()
			waitForLog(t, m.other, fmt.Sprintf(`msg="peer has moved" peer=%s old=[%s] new=[%s]`, nodetest.AAID, old, m.authority.Addr))
			if resting {
				m.send(2)
			}
			m.receive(2)
			if p := m.known(); p.Stomp.Servers[0] != m.authority.Addr || p.Stomp.BundleURLs[0] != next.URL {
				t.Errorf("the directory says %+v", p.Stomp)
			}
		})
	}
}

// announceTo connects to a node as another one, and announces a URL, until the node has accepted the
// session.
func announceTo(t *testing.T, to, from *linktest.Node, url string) {
	t.Helper()
	conn, err := dialAs(from, to)
	if err != nil {
		t.Fatal(err)
	}
	client, err := stomp.NewClient(t.Context(), conn, stomp.ClientConfig{Host: "/", Headers: []stomp.Header{{Name: link.BundleURLHeader, Value: url}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Disconnect(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// What is at an announced URL is taken over only if it is the newest info-bundle of the peer itself,
// signed with its pinned root key. What else a peer announces is reported, and changes nothing.
func TestAnnouncedPlacesAreChecked(t *testing.T) {
	t.Parallel()
	authority, other, p := linktest.New(t, aa), linktest.New(t, ca), newPlace(t, httptest.NewTLSServer)
	other.Config.Follow = impatient
	other.Config.Follow.Roots = p.trust()
	older := authority.Bundle(t)
	nodetest.Peer(t, authority.Node, other.Node)
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request by plain HTTP") }))
	t.Cleanup(plain.Close)
	attempts := refuse(t, authority.Addr)
	other.Start()
	known := func() string {
		t.Helper()
		peer, err := other.Peer(nodetest.AAID)
		if err != nil {
			t.Fatal(err)
		}
		return peer.UpdatedAt
	}
	before := known()
	linktest.Eventually(t, "the service to accept the peer", func() error {
		if attempts.Load() == 0 {
			return errors.New("it does not yet")
		}
		return nil
	})

	for _, url := range []string{plain.URL, "https://me:secret@127.0.0.1/", "https://127.0.0.1:0/", "file:///etc/passwd", "https://127.0.0.1/#x", "\x1b[31m"} {
		announceTo(t, other, authority, url)
	}
	waitForLog(t, other, "must start with https://")
	if strings.Contains(other.Log.String(), "secret") {
		t.Errorf("the log contains a password:\n%s", other.Log)
	}

	p.put(t, nodetest.New(t, aa, "127.0.0.1:1").Bundle(t))
	announceTo(t, other, authority, p.URL)
	waitForLog(t, other, "the info-bundle has another root certificate than the pinned one")
	p.put(t, os.DevNull)
	waitForLog(t, other, infobundle.ErrInvalid.Error())
	p.put(t, older)
	seen := p.requests.Load()
	linktest.Eventually(t, "fetches of the older info-bundle", func() error {
		announceTo(t, other, authority, p.URL)
		if n := p.requests.Load() - seen; n < 3 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	if got := known(); got != before {
		t.Errorf("the info-bundle of %s was taken over", got)
	}

	newest := authority.Bundle(t)
	p.put(t, newest)
	want := nodetest.ReadBundle(t, newest).UpdatedAt()
	linktest.Eventually(t, "the newest info-bundle", func() error {
		if got := known(); got != want {
			return fmt.Errorf("the directory has that of %s, want %s", got, want)
		}
		return nil
	})
}

// No announced URL leads to an address of this machine or its network, unless that is allowed, and
// none is fetched from if following is switched off.
func TestAnnouncementsAreRefused(t *testing.T) {
	t.Parallel()
	off, notLocal := impatient, impatient
	off.Off, notLocal.Local = true, false
	for _, tt := range []struct {
		name   string
		follow link.Follow
		peer   bool // followed
		log    string
	}{
		{"off", off, true, ""},
		{"off for the peer", impatient, false, ""},
		{"local address", notLocal, true, "an address of this machine"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			authority, other, p := linktest.New(t, aa), linktest.New(t, ca), newPlace(t, httptest.NewTLSServer)
			other.Config.Follow = tt.follow
			other.Config.Follow.Roots = p.trust()
			nodetest.Peer(t, authority.Node, other.Node)
			p.put(t, authority.Bundle(t))
			if err := other.SetFollow(t.Context(), nodetest.AAID, tt.peer); err != nil {
				t.Fatal(err)
			}
			attempts := refuse(t, authority.Addr)
			other.Start()
			linktest.Eventually(t, "the service to accept the peer", func() error {
				if attempts.Load() == 0 {
					return errors.New("it does not yet")
				}
				return nil
			})
			announceTo(t, other, authority, p.URL)
			if tt.log != "" {
				waitForLog(t, other, tt.log)
			}
			// Many times the pause after which others would have fetched.
			seen := attempts.Load()
			linktest.Eventually(t, "attempts to reach the peer", func() error {
				if n := attempts.Load() - seen; n < 20 {
					return fmt.Errorf("%d of 20", n)
				}
				return nil
			})
			if n := p.requests.Load(); n != 0 {
				t.Errorf("%d requests", n)
			}
		})
	}
}
