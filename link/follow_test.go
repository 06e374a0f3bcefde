package link_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/nodetest"
	"peerlink/node/publish"
)

// impatient makes fetches as soon as a peer is unreachable, and no periodic ones.
var impatient = link.Follow{Local: true, After: 50 * time.Millisecond, MaxPause: 200 * time.Millisecond, Every: 1000 * time.Hour}

// place is a web server at which a node publishes its info-bundle.
type place struct {
	*httptest.Server
	requests atomic.Int32

	mu      sync.Mutex
	handler http.Handler
}

// newPlace starts a place, with httptest.NewServer or httptest.NewTLSServer.
func newPlace(t *testing.T, start func(http.Handler) *httptest.Server) *place {
	t.Helper()
	p := &place{handler: http.NotFoundHandler()}
	p.Server = start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.requests.Add(1)
		p.mu.Lock()
		h := p.handler
		p.mu.Unlock()
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

// publish replaces the handler of the place.
func (p *place) publish(h http.Handler) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handler = h
}

// put publishes a file at every path.
func (p *place) put(t *testing.T, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p.publish(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(data) }))
}

// trust returns the authorities with which the certificate of the place is accepted.
func (p *place) trust() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(p.Certificate())
	return pool
}

// mover is an accounting authority that publishes its info-bundle, and an agent that is
// its peer.
type mover struct {
	t                *testing.T
	authority, other *linktest.Node
	web              *place
}

func newMover(t *testing.T, f link.Follow) *mover {
	t.Helper()
	m := &mover{t: t, authority: linktest.New(t, aa), other: linktest.New(t, ca), web: newPlace(t, httptest.NewServer)}
	m.web.publish(publish.New(publish.Config{File: m.authority.PublishedBundle(), Root: m.authority.Root()}))
	m.other.Config.Follow = f
	m.manifest(m.authority.Addr)
	nodetest.Peer(t, m.authority.Node, m.other.Node)
	m.authority.Start()
	return m
}

// manifest writes the authority's stomp.toml with a server and the URL of the web
// server.
func (m *mover) manifest(addr string) {
	m.t.Helper()
	writeManifest(m.t, m.authority, addr, m.web.URL+publish.Path)
}

func writeManifest(t *testing.T, n *linktest.Node, addr, url string) {
	t.Helper()
	data := fmt.Appendf(node.EncodeStompTOML(n.Identity().Type, []string{addr}), "%s = [%q]\n", node.BundleURLsKey, url)
	rewrite(t, filepath.Join(n.Path(), "nodeinfo", "stomp.toml"), data)
}

// rewrite replaces a file that a service polls, atomically.
func rewrite(t *testing.T, path string, data []byte) {
	t.Helper()
	next := filepath.Join(t.TempDir(), filepath.Base(path))
	if err := os.WriteFile(next, data, 0o644); err != nil {
		t.Fatal(err)
	}
	replace(t, next, path)
}

// move stops the authority, and starts it elsewhere, with a new info-bundle. At the old
// address, all connections are refused.
func (m *mover) move() (attempts *atomic.Int32) {
	m.t.Helper()
	if err := m.authority.Stop(); err != nil {
		m.t.Fatal(err)
	}
	attempts = refuse(m.t, m.authority.Addr)
	m.authority.Addr = linktest.FreeAddress(m.t)
	m.manifest(m.authority.Addr)
	m.authority.Bundle(m.t)
	m.authority.Start()
	return attempts
}

// refuse listens on an address, closes every connection, and counts them.
func refuse(t *testing.T, addr string) (attempts *atomic.Int32) {
	t.Helper()
	attempts = new(atomic.Int32)
	serveEach(t, addr, func(net.Conn) { attempts.Add(1) })
	return attempts
}

// send sends a message from the agent to the authority.
func (m *mover) send(n int) {
	m.t.Helper()
	m.other.Put(m.authority, linktest.Message(m.t, m.other, m.authority, n))
}

// receive waits for a message at the authority.
func (m *mover) receive(n int) {
	m.t.Helper()
	if got := m.authority.Take(1); got[fmt.Sprint("number ", n)].Type == "" {
		m.t.Fatalf("got %v, want number %d\n%s", got, n, m.other.Log)
	}
}

// known returns the peer as the agent's directory describes it.
func (m *mover) known() *node.Peer {
	m.t.Helper()
	p, err := m.other.Peer(nodetest.AAID)
	if err != nil {
		m.t.Fatal(err)
	}
	return p
}

func waitForLog(t *testing.T, n *linktest.Node, text string) {
	t.Helper()
	linktest.Eventually(t, "the report", func() error {
		if !strings.Contains(n.Log.String(), text) {
			return fmt.Errorf("no %q in\n%s", text, n.Log)
		}
		return nil
	})
}

// A peer that moves repeatedly is found without intervention, and messages sent to it
// meanwhile are delivered.
func TestMoverIsFollowed(t *testing.T) {
	t.Parallel()
	m := newMover(t, impatient)
	m.other.Start()
	m.send(1)
	m.receive(1)
	if n := m.web.requests.Load(); n != 0 {
		t.Errorf("%d requests while the peer was reachable", n)
	}
	for n := 2; n <= 4; n++ {
		old := m.authority.Addr
		m.move()
		m.send(n)
		m.receive(n)
		if p := m.known(); p.Stomp.Servers[0] != m.authority.Addr || p.SubCA == nil || !p.Active {
			t.Errorf("the directory says %+v, want the server %s", p, m.authority.Addr)
		}
		linktest.Eventually(t, "the status", func() error {
			if st := m.other.Service.Status().Peers[0]; st.Counts.Fetches == 0 || st.Counts.FetchFailures != 0 || st.InfoBundle != m.known().UpdatedAt {
				return fmt.Errorf("status is %+v", st)
			}
			return nil
		})
		waitForLog(t, m.other, fmt.Sprintf(`msg="peer has moved" peer=%s old=[%s] new=[%s]`, nodetest.AAID, old, m.authority.Addr))
	}
}

// If the directory is read-only, the new address is used all the same, and again after
// a restart. When the directory has a newer one, that is used.
func TestMoverIsFollowedReadOnly(t *testing.T) {
	t.Parallel()
	m := newMover(t, impatient)
	m.other.Start()
	m.send(1)
	m.receive(1)
	first := m.authority.Addr
	writable := makeReadOnly(t, m.other.Path())
	m.move()
	m.send(2)
	m.receive(2)
	if got := m.known().Stomp.Servers[0]; got != first {
		t.Errorf("the read-only directory says %s", got)
	}
	waitForLog(t, m.other, "kept in memory only")
	if got, old := m.other.Service.Status().Peers[0].InfoBundle, m.known().UpdatedAt; got <= old {
		t.Errorf("the status has the info-bundle of %s, the directory that of %s", got, old)
	}

	if err := m.other.Stop(); err != nil {
		t.Fatal(err)
	}
	m.other.Start()
	m.send(3)
	m.receive(3)

	// From here on the operator installs the bundle.
	m.web.publish(http.NotFoundHandler())
	writable()
	m.move()
	m.other.Sign(t, m.authority.PublishedBundle())
	m.send(4)
	m.receive(4)
}

// If following is switched off, for the node, for the peer, or for addresses like
// these, the peer's address stays the same until the operator acts.
func TestMoverIsNotFollowed(t *testing.T) {
	t.Parallel()
	off, notLocal := impatient, impatient
	off.Off, notLocal.Local = true, false
	for _, tt := range []struct {
		name   string
		follow link.Follow
		peer   bool // followed
		log    string
	}{
		{"by the node", off, true, ""},
		{"of the peer", impatient, false, ""},
		{"to local addresses", notLocal, true, "an address of this machine"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := newMover(t, tt.follow)
			if err := m.other.SetFollow(context.Background(), nodetest.AAID, tt.peer); err != nil {
				t.Fatal(err)
			}
			m.other.Start()
			m.send(1)
			m.receive(1)
			old := m.authority.Addr
			attempts := m.move()
			m.send(2)
			// Many times the pause after which others would have followed.
			linktest.Eventually(t, "attempts at the old place", func() error {
				if n := attempts.Load(); n < 20 {
					return fmt.Errorf("%d of 20", n)
				}
				return nil
			})
			if n := m.web.requests.Load(); n != 0 {
				t.Errorf("%d requests", n)
			}
			if got := m.known().Stomp.Servers[0]; got != old {
				t.Errorf("the directory says %s", got)
			}
			if tt.log != "" {
				waitForLog(t, m.other, tt.log)
			}
			if tt.peer {
				m.other.Sign(t, m.authority.PublishedBundle())
			} else if err := m.other.SetFollow(context.Background(), nodetest.AAID, true); err != nil {
				t.Fatal(err)
			}
			m.receive(2)
		})
	}
}

// An info-bundle that is published by another node than the pinned one, is invalid, or
// is older, is not applied; the next good one is.
func TestBadBundlesAreNotFollowed(t *testing.T) {
	t.Parallel()
	m := newMover(t, impatient)
	old := m.authority.Bundle(t)
	m.manifest(m.authority.Addr) // the agent has a newer one
	m.other.Sign(t, m.authority.Bundle(t))
	before := m.known()
	m.other.Start()
	m.send(1)
	m.receive(1)

	good := m.web.handler
	impostor := nodetest.New(t, aa, "127.0.0.1:1")
	tampered, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	tampered[len(tampered)/2] ^= 1
	serve := func(data []byte) {
		m.web.publish(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(data) }))
	}
	serve(tampered)
	m.move()
	m.send(2)
	waitForLog(t, m.other, infobundle.ErrInvalid.Error())
	if c := m.other.Service.Status().Peers[0].Counts; c.FetchFailures == 0 {
		t.Errorf("counts are %+v", c)
	}
	stolen, err := os.ReadFile(impostor.Bundle(t))
	if err != nil {
		t.Fatal(err)
	}
	serve(stolen)
	waitForLog(t, m.other, "the info-bundle has another root certificate than the pinned one")
	data, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	serve(data)
	seen := m.web.requests.Load()
	linktest.Eventually(t, "three fetches of the older bundle", func() error {
		if n := m.web.requests.Load(); n < seen+3 {
			return fmt.Errorf("%d", n-seen)
		}
		return nil
	})
	if p := m.known(); p.UpdatedAt != before.UpdatedAt || p.Stomp.Servers[0] != before.Stomp.Servers[0] {
		t.Errorf("the directory says %+v", p)
	}
	m.web.publish(good)
	m.receive(2)
}

// While a peer is reachable, its info-bundle is fetched periodically too, at low cost:
// if it has not changed, it is not sent again.
func TestRoutineFetch(t *testing.T) {
	t.Parallel()
	f := impatient
	f.Every = 20 * time.Millisecond
	m := newMover(t, f)
	var unchanged atomic.Int32
	inner := m.web.handler
	m.web.publish(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &statusWriter{ResponseWriter: w}
		inner.ServeHTTP(rec, r)
		if rec.status == http.StatusNotModified {
			unchanged.Add(1)
		}
	}))
	m.other.Start()
	for range 2 {
		m.authority.Bundle(t)
		want := nodetest.ReadBundle(t, m.authority.PublishedBundle()).UpdatedAt()
		linktest.Eventually(t, "the new date", func() error {
			if got := m.known().UpdatedAt; got != want {
				return fmt.Errorf("%s, want %s", got, want)
			}
			return nil
		})
		seen := unchanged.Load()
		linktest.Eventually(t, "a fetch of the unchanged bundle", func() error {
			if unchanged.Load() == seen {
				return errors.New("none")
			}
			return nil
		})
	}
	m.send(1)
	m.receive(1)
	if strings.Contains(m.other.Log.String(), "peer has moved") {
		t.Error("a move was reported")
	}
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// However many peers are unreachable, and however slow their servers are, only a few
// are fetched from at once, and each is fetched from eventually.
func TestFetchesAreBounded(t *testing.T) {
	t.Parallel()
	const peers, most = 10, 4
	var open atomic.Int32
	var mu sync.Mutex
	asked := make(map[string]bool)
	release := make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		open.Add(1)
		defer open.Add(-1)
		<-release
		mu.Lock()
		defer mu.Unlock()
		asked[r.URL.Path] = true
		http.NotFound(w, r)
	}))
	t.Cleanup(web.Close)
	dead := linktest.FreeAddress(t)
	attempts := refuse(t, dead)
	authority := linktest.New(t, aa)
	authority.Config.Follow = impatient
	for i := range peers {
		agent := linktest.New(t, ca)
		writeManifest(t, agent, dead, fmt.Sprintf("%s/%d", web.URL, i))
		nodetest.Peer(t, authority.Node, agent.Node)
	}
	authority.Start()
	linktest.Eventually(t, "the maximum number of concurrent requests", func() error {
		if n := open.Load(); n < most {
			return fmt.Errorf("%d of %d requests are open", n, most)
		}
		return nil
	})
	// By then every peer has been unreachable for long enough.
	seen := attempts.Load()
	linktest.Eventually(t, "many more attempts to reach the peers", func() error {
		if n := attempts.Load() - seen; n < 10*peers {
			return fmt.Errorf("%d of %d", n, 10*peers)
		}
		return nil
	})
	if n := open.Load(); n != most {
		t.Errorf("%d requests at once, want %d", n, most)
	}
	close(release)
	linktest.Eventually(t, "a request for each peer", func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(asked) < peers {
			return fmt.Errorf("%d of %d", len(asked), peers)
		}
		return nil
	})
}

// makeReadOnly makes a directory read-only until writable is called.
func makeReadOnly(t *testing.T, dir string) (writable func()) {
	t.Helper()
	if os.Geteuid() == 0 {
		return mountReadOnly(t, dir) // modes do not stop root
	}
	set := func(mode fs.FileMode) error {
		return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				err = os.Chmod(path, mode)
			}
			return err
		})
	}
	if err := set(0o555); err != nil {
		t.Fatal(err)
	}
	writable = sync.OnceFunc(func() {
		if err := set(0o755); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(writable)
	return writable
}
