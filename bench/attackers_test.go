package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"peerlink/node/pki"
)

// attackSettings are the settings of the attackers.
type attackSettings struct {
	Addr  string   // of the attacked node
	Kinds []string // the kinds of attack to run: keys of attacks
	// OneAddress is set if the attackers have the source address of the honest peer, as
	// behind a load balancer. Otherwise each kind of attack has an address of its own.
	OneAddress bool
	Peers      map[string]credentials
	Message    []byte // a body that Peers["flood"] may send
}

// credentials are the certificate and key of a peer of the node.
type credentials struct {
	CertFile, KeyFile string
	PeerCert          []byte
}

// attackKind is a kind of attack.
type attackKind struct {
	perSecond int // the intended number of successful attacks per second; 0: as many as possible
	do        func(*attacker, context.Context) error
}

var attacks = map[string]attackKind{
	"strangers": {50, (*attacker).strangers},
	"chains":    {10, (*attacker).chains},
	"silence":   {100, (*attacker).silence},
	"loris":     {50, (*attacker).slowLoris},
	"garbage":   {10, (*attacker).garbage},
	"flood":     {0, (*attacker).flood},
}

// attacker runs attacks of one kind.
type attacker struct {
	attackKind
	name   string
	known  *attackSettings
	dialer net.Dialer
	landed atomic.Uint64 // number of attacks that have had the intended effect on the node
}

// attackCount is the number of successful attacks of one kind.
type attackCount struct {
	Name   string
	Landed uint64
	Meant  float64 // the intended number; 0 if the kind has no fixed rate
	During time.Duration
}

// attackRun is a set of attacks that run at the same time.
type attackRun struct {
	all   []*attacker
	stop  context.CancelFunc
	ended chan error // receives the result of each attacker
	since time.Time  // when counting began
}

// attackers is the helper process that attacks a node. On the command "begin" it starts the
// attacks; on any other command it ends them and answers with their attackCounts.
func attackers(settings json.RawMessage) (func(string) (any, error), error) {
	known := new(attackSettings)
	if err := json.Unmarshal(settings, known); err != nil {
		return nil, err
	}
	var s *attackRun
	return func(command string) (any, error) {
		if command == "begin" {
			s = startAttacks(known)
			return nil, s.awaitStart()
		}
		return s.end()
	}, nil
}

func startAttacks(known *attackSettings) *attackRun {
	s := &attackRun{ended: make(chan error, len(known.Kinds))}
	var ctx context.Context
	ctx, s.stop = context.WithCancel(context.Background())
	for i, name := range known.Kinds {
		a := &attacker{attackKind: attacks[name], name: name, known: known}
		if runtime.GOOS == "linux" && !known.OneAddress { // other systems have one address on loopback
			// With separate source addresses, the kinds of attack do not impede each other.
			a.dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i))}
		}
		s.all = append(s.all, a)
		go func() { s.ended <- a.do(a, ctx) }()
	}
	return s
}

// awaitStart waits until each attacker has had as many successful attacks as are intended
// per second, or one if it has no fixed rate. Then it begins to count them from zero.
func (s *attackRun) awaitStart() error {
	deadline := time.Now().Add(30 * time.Second)
	for _, a := range s.all {
		for a.landed.Load() < uint64(max(1, a.perSecond)) {
			if time.Now().After(deadline) {
				return fmt.Errorf("%s: %d of %d attacks have succeeded", a.name, a.landed.Load(), a.perSecond)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	for _, a := range s.all {
		a.landed.Store(0)
	}
	s.since = time.Now()
	return nil
}

// end ends all attacks, and returns how many of each kind have succeeded.
func (s *attackRun) end() (list []attackCount, err error) {
	during := time.Since(s.since)
	for _, a := range s.all {
		list = append(list, attackCount{a.name, a.landed.Load(), float64(a.perSecond) * during.Seconds(), during})
	}
	s.stop()
	for range s.all {
		err = errors.Join(err, <-s.ended)
	}
	return list, err
}

// mostAtOnce is the maximum number of concurrent attacks of one attacker.
const mostAtOnce = 64

// every calls do at the rate a.perSecond until ctx ends. Calls run concurrently, so that a
// slow call does not delay the others. Calls that are late because the processor was busy
// are made up for.
func (a *attacker) every(ctx context.Context, do func(ctx context.Context) (landed bool)) {
	pause := time.Second / time.Duration(a.perSecond)
	places := make(chan struct{}, mostAtOnce)
	var wg sync.WaitGroup
	defer wg.Wait()
	for due := time.Now(); ; due = due.Add(pause) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(due)):
		}
		select {
		case <-ctx.Done():
			return
		case places <- struct{}{}:
		}
		wg.Go(func() {
			if do(ctx) {
				a.landed.Add(1)
			}
			<-places
		})
	}
}

// handshake connects to the node and performs a TLS handshake with the given certificate,
// even if the node's certificate request does not name its issuer. The connection is closed
// when ctx ends.
func (a *attacker) handshake(ctx context.Context, shown *tls.Certificate) (*tls.Conn, error) {
	tcp, err := a.dialer.DialContext(ctx, "tcp", a.known.Addr)
	if err != nil {
		return nil, err
	}
	if err := tcp.(*net.TCPConn).SetLinger(0); err != nil { // close with a reset, so that no data is in transit after the end of the attack
		return nil, err
	}
	context.AfterFunc(ctx, func() { tcp.Close() })
	conn := tls.Client(tcp, &tls.Config{
		InsecureSkipVerify:   true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shown, nil },
	})
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if err := conn.HandshakeContext(ctx); err != nil {
		tcp.Close()
		return nil, err
	}
	return conn, nil
}

// refused reports whether the node has rejected the certificates with a TLS alert. In TLS
// 1.3 the client receives the alert when it reads from the connection.
func (a *attacker) refused(ctx context.Context, shown *tls.Certificate) bool {
	conn, err := a.handshake(ctx, shown)
	if err == nil {
		defer conn.Close()
		_, err = io.ReadAll(conn)
	}
	alert := new(net.OpError)
	return errors.As(err, &alert) && alert.Op == "remote error"
}

// strangers presents a certificate whose issuer is unknown to the node.
func (a *attacker) strangers(ctx context.Context) error {
	pair, err := tls.LoadX509KeyPair(a.known.Peers["garbage"].CertFile, a.known.Peers["garbage"].KeyFile)
	if err != nil {
		return err
	}
	a.every(ctx, func(ctx context.Context) bool { return a.refused(ctx, &pair) })
	return nil
}

// chains presents two certificate chains alternately: one with large keys and many names,
// almost as large as the largest chain that the node examines, and one of many certificates,
// almost as large as the largest chain that TLS accepts.
func (a *attacker) chains(ctx context.Context) error {
	large, err := chain(9, 6<<10)
	if err != nil {
		return err
	}
	many, err := chain(700, 0)
	if err != nil {
		return err
	}
	var n atomic.Int64
	a.every(ctx, func(ctx context.Context) bool {
		return a.refused(ctx, []*tls.Certificate{large, many}[n.Add(1)%2])
	})
	return nil
}

// chain makes a chain of a server certificate and the given number of CA certificates. Each
// certificate contains about names bytes of DNS names. If names is not 0, the CA
// certificates have large RSA keys.
func chain(authorities, names int) (*tls.Certificate, error) {
	key, err := pki.GenerateKey(pki.P256)
	if err != nil {
		return nil, err
	}
	made := &tls.Certificate{PrivateKey: key}
	add := func(pub crypto.PublicKey, names int) error {
		t := &x509.Certificate{
			Subject: pkix.Name{CommonName: "x"}, SerialNumber: big.NewInt(int64(len(made.Certificate) + 1)),
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		}
		for n := range names / 100 {
			t.DNSNames = append(t.DNSNames, fmt.Sprintf("%s%d.example", strings.Repeat("x", 60), n))
		}
		der, err := x509.CreateCertificate(rand.Reader, t, t, pub, key)
		made.Certificate = append(made.Certificate, der)
		return err
	}
	if err := add(key.Public(), names); err != nil {
		return nil, err
	}
	var pub crypto.PublicKey = key.Public()
	if names > 0 {
		modulus := new(big.Int).Lsh(big.NewInt(3), 8190)
		pub = &rsa.PublicKey{N: modulus.SetBit(modulus, 0, 1), E: 65537}
	}
	for range authorities {
		if err := add(pub, names); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// silence opens connections on which it sends nothing, and keeps the 1,000 newest open.
func (a *attacker) silence(ctx context.Context) error {
	held := make(chan net.Conn, 1000)
	a.every(ctx, func(ctx context.Context) bool {
		conn, err := a.dialer.DialContext(ctx, "tcp", a.known.Addr)
		if err != nil {
			return false
		}
		for {
			select {
			case held <- conn:
				return true
			default:
			}
			select {
			case oldest := <-held:
				oldest.Close()
			default:
			}
		}
	})
	for len(held) > 0 {
		(<-held).Close()
	}
	return nil
}

// certificateOf returns the certificate chain and the key of the named bad peer.
func (a *attacker) certificateOf(peer string) (*tls.Certificate, error) {
	p := a.known.Peers[peer]
	pair, err := tls.LoadX509KeyPair(p.CertFile, p.KeyFile)
	pair.Certificate = append(pair.Certificate, p.PeerCert)
	return &pair, err
}

// session connects to the node with the certificate of a bad peer, and opens a STOMP
// session.
func (a *attacker) session(ctx context.Context, shown *tls.Certificate) (*tls.Conn, error) {
	conn, err := a.handshake(ctx, shown)
	if err != nil {
		return nil, err
	}
	fmt.Fprint(conn, "STOMP\naccept-version:1.2\nhost:/\nheart-beat:0,1000\n\n\x00")
	answer, err := bufio.NewReader(io.LimitReader(conn, 1000)).ReadString('\n')
	if err == nil && answer != "CONNECTED\n" {
		err = fmt.Errorf("answered with %q", answer)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, conn.SetDeadline(time.Time{})
}

// slowLoris sends single bytes of a frame at intervals on 5 connections.
func (a *attacker) slowLoris(ctx context.Context) error {
	shown, err := a.certificateOf("loris")
	if err != nil {
		return err
	}
	conns := make(chan *tls.Conn, 5)
	for range cap(conns) {
		conns <- nil
	}
	a.every(ctx, func(ctx context.Context) bool {
		var conn *tls.Conn
		select {
		case conn = <-conns:
		default:
			return false
		}
		if conn == nil {
			if conn, err = a.session(ctx, shown); err != nil {
				conns <- nil
				return false
			}
		}
		if _, err := fmt.Fprint(conn, "S"); err != nil {
			conn.Close()
			conn = nil
		}
		conns <- conn
		return conn != nil
	})
	return nil
}

// garbage opens sessions, and sends an invalid message in each.
func (a *attacker) garbage(ctx context.Context) error {
	shown, err := a.certificateOf("garbage")
	if err != nil {
		return err
	}
	a.every(ctx, func(ctx context.Context) bool {
		conn, err := a.session(ctx, shown)
		if err != nil {
			return false
		}
		defer conn.Close()
		fmt.Fprint(conn, "SEND\ndestination:/exchange/accounts_in\ntype:ConfigureAccount\nreceipt:1\n\n{}\x00")
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		answer, _ := io.ReadAll(conn)
		return bytes.Contains(answer, []byte("ERROR\n"))
	})
	return nil
}

// floodConns is the number of connections on which a peer floods the node: the maximum that
// the node permits.
const floodConns = 10

// flood sends valid messages as fast as the node reads them.
func (a *attacker) flood(ctx context.Context) error {
	shown, err := a.certificateOf("flood")
	if err != nil {
		return err
	}
	const frames = 20
	message := fmt.Sprintf("SEND\ndestination:/exchange/accounts_in\ntype:ConfigureAccount\ncontent-type:application/json\nreceipt:1\ncontent-length:%d\n\n%s\x00",
		len(a.known.Message), a.known.Message)
	load := bytes.Repeat([]byte(message), frames)
	var wg sync.WaitGroup
	for range floodConns {
		wg.Go(func() {
			for ctx.Err() == nil {
				conn, err := a.session(ctx, shown)
				if err != nil {
					select {
					case <-ctx.Done():
					case <-time.After(100 * time.Millisecond): // the node has no room for it yet
					}
					continue
				}
				go io.Copy(io.Discard, conn)
				for err == nil {
					if _, err = conn.Write(load); err == nil {
						a.landed.Add(frames)
					}
				}
				conn.Close()
			}
		})
	}
	wg.Wait()
	return nil
}
