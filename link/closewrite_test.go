package link

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"
)

// A connection whose other side does not read is closed in time also while crypto/tls writes by
// itself, as it does to answer key updates: crypto/tls alone would wait until that write ends.
func TestCloseDuringWriteOfTLS(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		end  func(*peerConn)
		most time.Duration
	}{
		"Close": {func(c *peerConn) { c.Close() }, 3 * time.Second},
		"abort": {abort, time.Second},
	} {
		ours, theirs := net.Pipe()
		below := &writeSignalConn{Conn: ours, begun: make(chan struct{})}
		c := &peerConn{wire: &wireConn{Conn: below}}
		c.Conn = tls.Server(c.wire, &tls.Config{
			Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
			SessionTicketsDisabled: true,
		})
		handshake := make(chan error, 1)
		go func() { handshake <- tls.Client(theirs, &tls.Config{InsecureSkipVerify: true}).Handshake() }()
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		if err := <-handshake; err != nil {
			t.Fatal(err)
		}
		below.watch()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c.CloseWrite() // writes, for up to 5 s, and crypto/tls does not count it as a call of Write
		}()
		<-below.begun
		start := time.Now()
		test.end(c)
		if took := time.Since(start); took > test.most {
			t.Errorf("%s took %v, want at most %v", name, took, test.most)
		}
		<-ended
	}
}

// writeSignalConn closes begun when the first write after a call of watch begins.
type writeSignalConn struct {
	net.Conn
	mu      sync.Mutex
	watched bool
	begun   chan struct{}
}

func (c *writeSignalConn) watch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watched = true
}

func (c *writeSignalConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	if c.watched {
		c.watched = false
		close(c.begun)
	}
	c.mu.Unlock()
	return c.Conn.Write(p)
}
