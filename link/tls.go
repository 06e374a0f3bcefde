package link

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"peerlink/node"
	"peerlink/node/pki"
	"peerlink/stomp"
)

// Rules of all handshakes: TLS 1.3 or newer, certificates on both sides, no host names
// (a node is identified by its certificate's subject, on any host), and chains verified
// by [pki], because crypto/x509 does not implement the name constraints on which the
// trust in peers is based. There are no session tickets: a resumed session would
// outlive a deactivation.

// serverTLS returns the configuration for accepting connections with the certificate
// own; with it, handshakes fail once own has expired. identify is called with each verified
// chain.
func (a *acceptor) serverTLS(own *tls.Certificate, identify func(pki.Identity, []*x509.Certificate)) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		ClientAuth:             tls.RequireAnyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if _, expired := firstToExpire([]usedCertificate{{"server", own.Leaf}}, a.cfg.Now()); expired != nil {
				return nil, expired
			}
			return own, nil
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			defer a.verifySemaphore.acquire(a.showsKnownPeer(cs))()
			id, chain, err := pki.VerifyClient(rawCertificates(cs), a.cfg.Dir.Root(), a.cfg.Now())
			if err != nil {
				return err
			}
			identify(id, chain)
			return nil
		},
	}
}

// clientTLS returns the configuration for dialing a peer with the certificate own.
// groups are the key exchanges to offer; nil means all of crypto/tls. verified is
// called with the verified chain.
func clientTLS(own *tls.Certificate, p *node.Peer, groups []tls.CurveID, now func() time.Time, verified func([]*x509.Certificate)) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		CurvePreferences:       groups,
		SessionTicketsDisabled: true,
		InsecureSkipVerify:     true, // VerifyConnection verifies
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return own, nil
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			chain, err := pki.VerifyServer(rawCertificates(cs), p.Root, p.Identity, now())
			if err != nil {
				return err
			}
			if p.Revoked.Has(chain[0]) {
				return errKeyRevoked
			}
			verified(chain)
			return nil
		},
	}
}

// errKeyRevoked means that the other side has used a server key that its owner has revoked.
var errKeyRevoked = errors.New("the server key of the other side has been revoked by its owner: whoever uses it has stolen it, or has to change it")

// peerConn is a connection whose TLS handshake is complete.
type peerConn struct {
	*tls.Conn
	wire  *wireConn           // below TLS
	took  time.Duration       // of the handshake
	own   *x509.Certificate   // this node's server certificate, as it was sent
	chain []*x509.Certificate // of the other side, verified, leaf first
}

// Close closes the connection, which takes a second at most. crypto/tls waits until a write of its
// own has ended, such as the answer to a key update, and then writes its last message. Without
// the limit, a peer that does not read would delay that until the deadlines of both writes.
func (c *peerConn) Close() error {
	c.wire.limitWrites(time.Second)
	return c.Conn.Close()
}

// Read also counts the bytes that TLS returns, for wireConn.
func (c *peerConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.wire.data.Add(int64(n))
	return n, err
}

// rawCertificates returns the DER form of the certificates that the other side has sent.
func rawCertificates(cs tls.ConnectionState) [][]byte {
	raw := make([][]byte, len(cs.PeerCertificates))
	for i, c := range cs.PeerCertificates {
		raw[i] = c.Raw
	}
	return raw
}

// describeChain formats a verified chain for the log: role, name and key of each
// certificate, leaf first.
func describeChain(chain []*x509.Certificate) string {
	parts := make([]string, len(chain))
	for i, c := range chain {
		role := "peer certificate"
		switch {
		case i == 0:
			role = "server"
		case i == len(chain)-1:
			role = "root"
		}
		parts[i] = role + " of " + describeCertificate(c)
	}
	return strings.Join(parts, " < ")
}

// describeCertificate returns the name and the key of a certificate.
func describeCertificate(c *x509.Certificate) string {
	who := c.Subject.String()
	if id, err := pki.IdentityOf(c.RawSubject); err == nil {
		who = id.Type.Short() + " " + id.ID
	}
	return fmt.Sprintf("%s (key %.8s)", who, strings.TrimPrefix(pki.Fingerprint(c.PublicKey), "sha256:"))
}

// abort closes a connection whose other side may not be responding, without waiting for writes.
// The kernel, which would otherwise keep unsent data for minutes, drops it immediately.
func abort(conn *peerConn) {
	_ = setLinger(conn.NetConn(), 0) // on an error, the kernel keeps the data
	conn.NetConn().Close()
	conn.Close()
}

// setLinger sets the linger time of a TCP connection, or of a wrapper with such a
// method.
func setLinger(conn net.Conn, seconds int) error {
	if tcp, ok := conn.(interface{ SetLinger(seconds int) error }); ok {
		return tcp.SetLinger(seconds)
	}
	return errors.ErrUnsupported
}

// A peer may send overheadAtOnce bytes that carry no data (bytes read from the
// connection that TLS does not return), and in addition half as many as it sends data,
// and overheadPerSecond. A TLS record has an overhead of 22 bytes, so a message in its
// own record takes a tenth of its share, and heart-beats take a hundredth of the rate.
// (overheadAtOnce also covers bytes that TLS has read and not returned yet.) Only a
// record for each byte, or endless key updates, cause more.
const (
	overheadAtOnce    = 128 << 10
	overheadPerSecond = 4 << 10
)

var errOverhead = errors.New("the other side sends TLS records with next to no data in them")

// wireConn is the connection below TLS. After the handshake, it compares the bytes read
// with those that TLS returns. A write without a deadline gets one: TLS itself writes
// without one, a peer can cause such writes (by key updates) and then not read, and
// crypto/tls closes no connection during such a write.
type wireConn struct {
	net.Conn
	hasDeadline atomic.Bool // the user of the connection has set a write deadline

	deadlineMu sync.Mutex // held while a write deadline is set
	latest     time.Time  // no write deadline is later; zero: there is no such limit

	since atomic.Pointer[time.Time] // when the handshake was completed; nil before
	read  atomic.Int64              // bytes since then
	data  atomic.Int64              // bytes that TLS has returned
	last  atomic.Int64              // when data was last read, in ns since 1970; 0 if it was not
}

// lastReceived returns when data last arrived from the other side after the handshake. It returns
// the zero time if none has arrived, or if c is nil.
func (c *wireConn) lastReceived() time.Time {
	if c == nil || c.last.Load() == 0 {
		return time.Time{}
	}
	return time.Unix(0, c.last.Load())
}

// begin starts to count the bytes read. It is called when the handshake is complete.
func (c *wireConn) begin() {
	now := time.Now()
	c.since.Store(&now)
}

func (c *wireConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	since := c.since.Load()
	if since == nil {
		return n, err
	}
	if n > 0 {
		c.last.Store(time.Now().UnixNano())
	}
	data := c.data.Load()
	overhead := c.read.Add(int64(n)) - data
	if overhead > overheadAtOnce+data/2 && overhead > overheadAtOnce+data/2+int64(time.Since(*since).Seconds()*overheadPerSecond) {
		return 0, errOverhead
	}
	return n, err
}

// SetDeadline sets the deadline of reads and writes.
func (c *wireConn) SetDeadline(t time.Time) error {
	return errors.Join(c.Conn.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetWriteDeadline sets the deadline of writes. The zero time sets the default
// deadline, because a write without a deadline may be in progress.
func (c *wireConn) SetWriteDeadline(t time.Time) error {
	c.hasDeadline.Store(!t.IsZero())
	if t.IsZero() {
		t = time.Now().Add(stomp.WriteTimeout)
	}
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	if !c.latest.IsZero() && t.After(c.latest) {
		t = c.latest
	}
	return c.Conn.SetWriteDeadline(t)
}

// limitWrites makes writes, also one that is in progress, end within d from now, whatever
// deadlines are set later. Only the first call has an effect.
func (c *wireConn) limitWrites(d time.Duration) {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	if c.latest.IsZero() {
		c.latest = time.Now().Add(d)
		_ = c.Conn.SetWriteDeadline(c.latest)
	}
}

func (c *wireConn) Write(p []byte) (int, error) {
	if !c.hasDeadline.Load() {
		if err := c.SetWriteDeadline(time.Time{}); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(p)
}

// SetLinger sets the linger time of the TCP connection.
func (c *wireConn) SetLinger(seconds int) error { return setLinger(c.Conn, seconds) }
