package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"peerlink/broker"
	"peerlink/broker/embedded"
	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
	"peerlink/stomp"
)

// fixture is a node, which is examined, and its only peer, whose service runs. All is well with them.
type fixture struct {
	*testing.T
	node, peer *linktest.Node
	cfg        Config
	broker     *Embedded
}

// newFixture returns a fixture of an accounting authority, whose peer is an agent.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	return newFixtureOf(t, linktest.New(t, nodetype.AccountingAuthority), linktest.New(t, nodetype.CreditorsAgent))
}

func newFixtureOf(t *testing.T, n, peer *linktest.Node) *fixture {
	t.Helper()
	nodetest.Peer(t, n.Node, peer.Node)
	f := &fixture{T: t, node: n, peer: peer}
	f.broker = &Embedded{State: filepath.Join(t.TempDir(), "state"), Owner: ownerOf}
	f.broker.Store = filepath.Join(f.broker.State, "messages.db")
	f.cfg = Config{
		Dir: n.Path(), ServerCert: n.CertFile, ServerKey: n.KeyFile, Listen: n.Addr, Broker: f.broker,
		ConnectTimeout: 2 * time.Second, HandshakeTimeout: time.Second, synchronized: func() bool { return true },
	}
	f.must(os.Mkdir(f.broker.State, 0o700))
	f.must(n.MarkActive(f.peerID()))
	f.withStore(func(*embedded.Store) {})
	return f
}

func ownerOf(d *node.Dir) string { return d.Identity().String() }

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) peerID() string { return f.peer.Identity().ID }

// peerFile returns the path of a file of the peer in the node's directory.
func (f *fixture) peerFile(name string) string {
	return filepath.Join(f.node.Path(), "peers", f.peerID(), filepath.FromSlash(name))
}

func (f *fixture) file(name string) string {
	return filepath.Join(f.node.Path(), filepath.FromSlash(name))
}

func (f *fixture) write(path, text string) { f.must(os.WriteFile(path, []byte(text), 0o600)) }

// withStore opens the node's store, binds the peer's queue, and calls do.
func (f *fixture) withStore(do func(*embedded.Store)) {
	f.Helper()
	s, err := embedded.Open(f.broker.Store, embedded.Options{Owner: ownerOf(f.node.Dir), Service: true, Logger: f.node.Log.Logger()})
	f.must(err)
	p, err := f.node.Peer(f.peerID())
	f.must(err)
	b, err := bindingOf(f.node.Dir, p, link.DefaultQueuePattern)
	f.must(err)
	f.must(s.Bind(f.Context(), b))
	do(s)
	f.must(s.Close())
}

// queue puts a message for the peer into its queue.
func (f *fixture) queue(s *embedded.Store) {
	f.must(s.PutAll(f.Context(), linktest.QueueTo(f.peer), []broker.Outgoing{linktest.Message(f.T, f.node, f.peer, 1)}))
}

// setAside makes the first message for the peer a dead letter.
func (f *fixture) setAside(s *embedded.Store) {
	c, err := s.Consume(f.Context(), linktest.QueueTo(f.peer))
	f.must(err)
	defer c.Close()
	list, err := c.Next(f.Context(), 1)
	f.must(err)
	f.must(c.Exclude(list[0].Tag))
	f.must(c.DeadLetter(f.Context(), list[0].Tag, "invalid"))
}

// receive puts a message from the peer into the inbox.
func (f *fixture) receive(s *embedded.Store) {
	stored := make(chan error, 1)
	p, err := s.Publish(f.Context(), func(_ uint64, err error) { stored <- err })
	f.must(err)
	f.must(p.Publish(f.Context(), &broker.Incoming{Peer: f.peerID(), Exchange: f.node.Identity().Type.Inbox(), RoutingKey: "x", Type: "x", Body: make([]byte, 10_000)}))
	f.must(<-stored)
	f.must(p.Close())
}

// peerServers sets the servers of the peer in the node's directory.
func (f *fixture) peerServers(servers ...string) {
	f.write(f.peerFile("nodeinfo/stomp.toml"), string(node.EncodeStompTOML(f.peer.Identity().Type, servers)))
}

// serve handles connections to the address of the peer, in the place of its service. The handler closes them.
func (f *fixture) serve(handle func(net.Conn)) {
	f.Helper()
	l, err := net.Listen("tcp", f.peer.Addr)
	f.must(err)
	f.serveOn(l, handle)
}

// serveTLS is serve with the certificate of the peer.
func (f *fixture) serveTLS(c *tls.Config, handle func(net.Conn)) {
	f.Helper()
	pair, err := tls.LoadX509KeyPair(f.peer.CertFile, f.peer.KeyFile)
	f.must(err)
	c.Certificates, c.ClientAuth = []tls.Certificate{pair}, tls.RequireAnyClientCert
	l, err := tls.Listen("tcp", f.peer.Addr, c)
	f.must(err)
	f.serveOn(l, handle)
}

func (f *fixture) serveOn(l net.Listener, handle func(net.Conn)) {
	f.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go handle(conn)
		}
	}()
}

// says returns a handler that sends a text and reads until the client ends.
func says(text string) func(net.Conn) {
	return func(c net.Conn) {
		defer c.Close()
		io.WriteString(c, text)
		io.Copy(io.Discard, c)
	}
}

// answers returns a handler that waits for the first bytes of the client before it sends a text.
func answers(text string) func(net.Conn) {
	return func(c net.Conn) {
		c.Read(make([]byte, 1000))
		says(text)(c)
	}
}

// stompServer returns a handler that is a STOMP server. It fails a session with the message after a moment, unless
// that is empty.
func stompServer(cfg stomp.ServerConfig, failure string) func(net.Conn) {
	return func(c net.Conn) {
		s, err := stomp.NewServer(context.Background(), c, cfg)
		if err != nil {
			return
		}
		if failure != "" {
			time.AfterFunc(100*time.Millisecond, func() { s.Fail(&stomp.ServerError{Message: failure}) })
		}
		if _, err := s.Next(); errors.Is(err, io.EOF) {
			s.Finish()
		}
	}
}

// makeServerCert makes a server certificate of another validity for a node.
func (f *fixture) makeServerCert(n *linktest.Node, validity time.Duration) {
	n.WriteServerCertOf(f.T, pki.P256, n.CertFile, n.KeyFile, validity)
}
