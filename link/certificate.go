package link

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"peerlink/internal/durable"
	"peerlink/internal/textfile"
	"peerlink/internal/wait"
	"peerlink/node"
	"peerlink/node/pki"
)

// Certificate is this node's server certificate and its key, loaded from files. When
// the files are renewed, new connections use the new pair. A pair that cannot be used
// is reported once, and the last good pair stays in use.
type Certificate struct {
	certFile, keyFile string
	dir               *node.Dir
	current           atomic.Pointer[tls.Certificate]
	renewed           wait.Broadcast // notified when another pair has been loaded
	signSlots         chan struct{}  // limits the signatures computed at once, see limitedSigner

	mu    sync.Mutex // guards what follows
	now   func() time.Time
	stamp [2]node.FileStamp
	bad   bool // the files with this stamp could not be used
}

// LoadCertificate reads a server certificate and its unencrypted key, and
// checks that they belong together and to the node.
func LoadCertificate(d *node.Dir, certFile, keyFile string) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, dir: d, now: time.Now, signSlots: make(chan struct{}, runtime.GOMAXPROCS(0))}
	if _, err := c.reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// Leaf returns the server certificate in use.
func (c *Certificate) Leaf() *x509.Certificate { return c.current.Load().Leaf }

// setClock sets the clock by which reloaded certificates are verified.
func (c *Certificate) setClock(now func() time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

// reload loads the pair if the files have changed. logText is a message for the log; it
// is empty unless another pair is in use now, or a pair can be used again after an
// error. A pair that cannot be used is loaded again at each call, because the cause may
// not be the files but the clock, or a lack of file descriptors. An error is returned
// once for each change of the files.
func (c *Certificate) reload() (logText string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stamp := [2]node.FileStamp{node.StampFile(c.certFile), node.StampFile(c.keyFile)}
	unchanged := stamp == c.stamp
	if c.current.Load() != nil && unchanged && !c.bad {
		return "", nil
	}
	// c.stamp is zero before the first load, and also if the files do not exist. So an equal
	// stamp does not mean that an error was returned; bad does.
	wasBad := c.bad
	c.stamp = stamp
	pair, err := c.load()
	c.bad = err != nil
	switch {
	case err != nil && wasBad && unchanged:
		return "", nil
	case err != nil:
		return "", fmt.Errorf("server certificate: %w", err)
	case c.current.Load() == nil || !c.isCurrent(pair.Leaf):
		c.current.Store(pair)
		c.renewed.Notify()
		return "new server certificate", nil
	case wasBad:
		return "the server certificate can be used again", nil
	}
	return "", nil
}

// isCurrent reports whether leaf is the current certificate.
func (c *Certificate) isCurrent(leaf *x509.Certificate) bool {
	return c.current.Load().Leaf.Equal(leaf)
}

// forget makes the next reload read the files, whether they have changed or not, and return
// an error even if the error was returned before.
func (c *Certificate) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stamp, c.bad = [2]node.FileStamp{}, false
}

// maxPairFile bounds the file of the certificate and that of the key, each, in bytes.
const maxPairFile = 1 << 20

func (c *Certificate) load() (*tls.Certificate, error) {
	certPEM, certErr := textfile.Read(c.certFile, maxPairFile)
	keyPEM, keyErr := durable.Read(c.keyFile, maxPairFile)
	defer clear(keyPEM)
	if certErr != nil && keyErr != nil {
		return nil, fmt.Errorf("%w, and its key: %w", certErr, keyErr)
	}
	if err := cmp.Or(certErr, keyErr); err != nil {
		return nil, err
	}
	leaf, err := pki.ParseCertificatePEM(certPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.certFile, err)
	}
	key, err := pki.DecodeKey(keyPEM, func() ([]byte, error) {
		return nil, errors.New("a server key must not be encrypted: the service starts without anybody there to type a passphrase")
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.keyFile, err)
	}
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.keyFile, err)
	}
	if !bytes.Equal(pub, leaf.RawSubjectPublicKeyInfo) {
		return nil, fmt.Errorf("%s is not the key of %s; if \"peerlink server-cert renew --new-key\" was interrupted, the same command completes it", c.keyFile, c.certFile)
	}
	if _, err := pki.VerifyServer([][]byte{leaf.Raw}, c.dir.Root(), c.dir.Identity(), c.now()); err != nil {
		return nil, fmt.Errorf("%s can not be used by %s: %w", c.certFile, c.dir.Identity(), err)
	}
	revoked, err := c.dir.RevokedKeys()
	if err != nil {
		return nil, err
	}
	if revoked.Has(leaf) {
		return nil, fmt.Errorf("%s: %w", c.certFile, ErrOwnKeyRevoked)
	}
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: limitedSigner{key, c.signSlots}, Leaf: leaf}, nil
}

// ErrOwnKeyRevoked means that this node has revoked the server key that it uses.
var ErrOwnKeyRevoked = errors.New("the server key has been revoked (nodeinfo/revoked-keys.txt), so that peers refuse it: use another key (peerlink server-cert issue, or renew --new-key)")

// NotAfter returns the end of the certificate in use.
func (c *Certificate) NotAfter() time.Time { return c.current.Load().Leaf.NotAfter }

// checkRevoked returns [ErrOwnKeyRevoked] if the key in use has been revoked. If the list of revoked
// keys can not be read at present, it returns nil.
func (c *Certificate) checkRevoked() error {
	if revoked, err := c.dir.RevokedKeys(); err == nil && revoked.Has(c.current.Load().Leaf) {
		return ErrOwnKeyRevoked
	}
	return nil
}

// serverChain returns the chain that this node sends as a TLS server.
func (c *Certificate) serverChain() *tls.Certificate { return c.current.Load() }

// clientChain returns the chain that this node sends as a TLS client to a peer. subCA is
// the peer certificate received from that peer: with it, the peer can verify the server
// certificate.
func (c *Certificate) clientChain(subCA *x509.Certificate) *tls.Certificate {
	pair := *c.current.Load()
	pair.Certificate = [][]byte{pair.Leaf.Raw, subCA.Raw}
	return &pair
}

// limitedSigner is a signer that computes at most as many signatures at once as there are
// processors. Further calls wait in order. With an RSA key, signing is most of the work
// of a handshake. If a thousand handshakes shared the processors evenly, all would be
// slow, and most would time out.
type limitedSigner struct {
	crypto.Signer
	slots chan struct{}
}

func (l limitedSigner) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	l.slots <- struct{}{}
	defer func() { <-l.slots }()
	return l.Signer.Sign(rand, digest, opts)
}
