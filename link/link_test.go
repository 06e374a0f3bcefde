package link_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/internal/dnstest"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/smp"
)

const (
	aa = nodetype.AccountingAuthority
	ca = nodetype.CreditorsAgent
	da = nodetype.DebtorsAgent
)

// bothBrokers are the brokers on which every node must behave in the same way.
var bothBrokers = map[string]linktest.BrokerSetup{"embedded": linktest.Embedded, "RabbitMQ": linktest.RabbitMQ}

func TestMain(m *testing.M) {
	// Most tests wait for the disk, and for other processes.
	if err := flag.Set("test.parallel", "4"); err != nil { // -parallel on the command line counts more
		panic(err)
	}
	var err error
	if names, err = dnstest.Start(); err != nil {
		panic(err)
	}
	os.Exit(rabbittest.Run(m))
}

// Between every possible pair of nodes, on both brokers, messages are delivered both
// ways, checked and translated, with their headers, and are removed from the queues of
// the sender.
func TestMessagesFlowBothWays(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		agent       nodetype.Type
		authorityOn linktest.BrokerSetup
		agentOn     linktest.BrokerSetup
	}{
		{"CA", ca, linktest.Embedded, linktest.Embedded},
		{"DA", da, linktest.Embedded, linktest.Embedded},
		{"CA on RabbitMQ", ca, linktest.Embedded, linktest.RabbitMQ},
		{"AA and DA on RabbitMQ", da, linktest.RabbitMQ, linktest.RabbitMQ},
	} {
		t.Run(tt.name, func(t *testing.T) {
			authority, other := linktest.PairOn(t, tt.agent, tt.authorityOn, tt.agentOn)
			const count = 2000
			for _, way := range [][2]*linktest.Node{{authority, other}, {other, authority}} {
				way[0].Put(way[1], numbered(t, way[0], way[1], 0, count)...)
			}
			for _, way := range [][2]*linktest.Node{{authority, other}, {other, authority}} {
				from, to := way[0], way[1]
				got := to.Take(count)
				m := got["number 7"]
				headers := make(map[string]any)
				for _, h := range m.Headers {
					headers[h.Name] = h.Value
				}
				if headers["message-type"] != m.Type || headers["debtor-id"] != int64(0x1234abcd_00_000007) || m.RoutingKey == "" || m.ContentType != "application/json" {
					t.Errorf("message is %+v with headers %v", m, headers)
				}
				from.WaitDrained(to, 0)
			}
		})
	}
}

// Without failures, each message is delivered once.
func TestOnce(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	const count = 2000
	other.Put(authority, numbered(t, other, authority, 0, count)...)
	authority.Take(count)
	other.WaitDrained(authority, 0)
	stats, err := authority.Store.Stats(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, q := range stats.Queues {
		if q.Name == aa.Inbox() {
			found = true
			if q.Total != count {
				t.Errorf("%d messages were received, want %d", q.Total, count)
			}
		}
	}
	if !found {
		t.Errorf("no inbox in %+v", stats.Queues)
	}
}

// numbered returns count messages from one node to another, numbered from first.
func numbered(t *testing.T, from, to *linktest.Node, first, count int) []broker.Outgoing {
	t.Helper()
	var batch []broker.Outgoing
	for n := range count {
		batch = append(batch, linktest.Message(t, from, to, first+n))
	}
	return batch
}

// A peer that moves needs only a new info-bundle, no restart.
func TestPeerMoves(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	other.Put(authority, linktest.Message(t, other, authority, 1))
	authority.Take(1)
	if err := authority.Stop(); err != nil {
		t.Fatal(err)
	}
	other.Put(authority, linktest.Message(t, other, authority, 2))
	authority.Addr = linktest.FreeAddress(t)
	authority.WriteStompTOML(authority.Addr)
	authority.CertFile, authority.KeyFile = authority.ServerCert(t) // new server key
	authority.Start()
	other.Sign(t, authority.Bundle(t))
	if got := authority.Take(1); len(got) != 1 || got["number 2"].Type == "" {
		t.Errorf("got %v", got)
	}
}

// The servers that answer are used, whatever the other servers do.
func TestDeadServersAreSkipped(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	impostor := linktest.New(t, da) // another node's server on the address
	impostor.Start()
	servers := []string{"127.0.0.1:1", impostor.Addr, authority.Addr, "no-such-host.invalid:1"}
	authority.WriteStompTOML(servers...)
	nodetest.Peer(t, authority.Node, other.Node)
	authority.Start()
	other.Start()
	other.Put(authority, linktest.Message(t, other, authority, 1))
	authority.Take(1)
}

// A message that cannot be sent, and one that the peer refuses, become dead letters
// with the reason, and do not block others.
func TestPoison(t *testing.T) {
	t.Parallel()
	for name, on := range bothBrokers {
		t.Run(name, func(t *testing.T) { testPoison(t, on) })
	}
}

func testPoison(t *testing.T, on linktest.BrokerSetup) {
	authority, other := linktest.PairOn(t, ca, linktest.Embedded, on)
	other.Put(authority,
		linktest.Message(t, other, authority, 1),
		broker.Outgoing{Type: "ConfigureAccount", ContentType: "application/json", Body: []byte("garbage")},
		linktest.Message(t, other, authority, 2),
		issued(1), // valid, but refused by the peer
		linktest.Message(t, other, authority, 3),
	)
	authority.Take(3)
	reasons := strings.Join(other.WaitDrained(authority, 2), "\n")
	if !strings.Contains(reasons, "not valid JSON") || !strings.Contains(reasons, "coordinator") {
		t.Errorf("set aside: %q", reasons)
	}
}

// The connections with a deactivated peer end at once, in both directions, and are
// never made again.
func TestDeactivation(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	other.Put(authority, linktest.Message(t, other, authority, 1))
	authority.Put(other, linktest.Message(t, authority, other, 1))
	authority.Take(1)
	other.Take(1)
	if _, err := authority.DeactivatePeer(context.Background(), other.Identity().ID); err != nil {
		t.Fatal(err)
	}
	linktest.Eventually(t, "the refusal", func() error {
		if !strings.Contains(other.Log.String(), "no active link with you") {
			return errors.New(other.Log.String())
		}
		return nil
	})
	key := smp.OutgoingRoutingKey(aa, ca, 0x1234abcd_00_000001, 0x000001_01_00000000)
	result := make(chan error, 1)
	err := authority.Store.Send(context.Background(), "to_creditors", key, linktest.Message(t, authority, other, 2), func(err error) { result <- err })
	if err == nil {
		err = <-result
	}
	if !errors.Is(err, broker.ErrUnroutable) {
		t.Errorf("a message for a deactivated peer: %v, want ErrUnroutable", err)
	}
}

// A renewed server certificate is used without a restart. An invalid one is reported,
// and the last good one stays in use.
func TestCertificateRenewal(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	before := serialShown(t, other, authority)
	if err := os.WriteFile(authority.CertFile, []byte("broken"), 0o644); err != nil {
		t.Fatal(err)
	}
	linktest.Eventually(t, "the report", func() error {
		if !strings.Contains(authority.Log.String(), "the last good server certificate stays in use") {
			return errors.New("nothing reported")
		}
		return nil
	})
	if serialShown(t, other, authority) != before {
		t.Error("the certificate has changed")
	}
	authority.WriteServerCert(t, authority.CertFile, authority.KeyFile, 48*time.Hour)
	linktest.Eventually(t, "the new certificate", func() error {
		if serialShown(t, other, authority) == before {
			return errors.New("still the old one")
		}
		return nil
	})
	other.Put(authority, linktest.Message(t, other, authority, 1))
	authority.Take(1)
}

// serveEach listens on an address, serves each connection in a goroutine, and closes it then. It returns the
// address, with the port.
func serveEach(t *testing.T, addr string, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}

// relay forwards data both ways between two connections, until one of them ends, and closes both.
func relay(a, b net.Conn) {
	forward := func(to, from net.Conn) {
		defer a.Close()
		defer b.Close()
		io.Copy(to, from)
	}
	go forward(a, b)
	forward(b, a)
}

// dialAs connects to a node's server with the certificates of another node.
func dialAs(who, to *linktest.Node) (*tls.Conn, error) { return dialAsAt(who, to, to.Addr) }

// dialAsAt is dialAs with the address to dial.
func dialAsAt(who, to *linktest.Node, addr string) (*tls.Conn, error) {
	tcp, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	conn, err := handshakeAs(who, to, tcp)
	if err != nil {
		tcp.Close()
	}
	return conn, err
}

// handshakeAs authenticates a connection as one node to another.
func handshakeAs(who, to *linktest.Node, tcp net.Conn) (*tls.Conn, error) {
	pair, err := tls.LoadX509KeyPair(who.CertFile, who.KeyFile)
	if err != nil {
		return nil, err
	}
	p, err := who.Peer(to.Identity().ID)
	if err != nil {
		return nil, err
	}
	pair.Certificate = append(pair.Certificate, p.SubCA.Raw)
	conn := tls.Client(tcp, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}})
	return conn, conn.Handshake()
}

// Invalid frames and messages from a peer are answered with ERROR, logged with the peer
// and the reason, and do not affect other peers.
func TestMisbehavingPeer(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	connect := "STOMP\naccept-version:1.2\nhost:/\n\n\x00"
	send := func(headers, body string) string {
		return fmt.Sprintf("SEND\n%s\ncontent-length:%d\n\n%s\x00", headers, len(body), body)
	}
	const good = "destination:/exchange/accounts_in\ntype:ConfigureAccount\ncontent-type:application/json\nreceipt:r1"
	// The log contains up to ten ends of a peer's sessions at once; there are fewer
	// here.
	for _, tt := range []struct{ name, input, want, logged string }{
		{"no frame", "GET / HTTP/1.1\r\n\r\n", "ERROR", "not a command"},
		{"no CONNECT", send(good, "{}"), "expected CONNECT", "expected CONNECT"},
		{"unknown command", connect + "SUBSCRIBE\nid:1\ndestination:/queue/accounts_in\n\n\x00", "not supported", "SUBSCRIBE is not supported"},
		{"no receipt", connect + send("destination:/exchange/accounts_in\ntype:ConfigureAccount", "{}"), "no receipt header", "no receipt header"},
		{"wrong destination", connect + send(strings.Replace(good, "accounts_in", "creditors_in", 1), "{}"), "destination", "destination of SEND"},
		{"no JSON", connect + send(good, "hello"), "receipt-id:r1", "not valid JSON"},
		{"wrong direction", connect + send(strings.Replace(good, "ConfigureAccount", "AccountPurge", 1), "{}"), "AccountPurge", "invalid AccountPurge"},
		{"somebody else's creditor", connect + send(good, strings.Replace(string(linktest.Message(t, other, authority, 1).Body), "1103806595072", "7", 1)), "creditor", "creditor_id is 7"},
		{"endless headers", connect + "SEND\n" + strings.Repeat("x:y\n", 60), "more than 50 headers", "more than 50 headers"},
		{"large headers", connect + "SEND\n" + strings.Repeat("x:"+strings.Repeat("y", 450)+"\n", 20), "take more than 4096 bytes", "take more than 4096 bytes"},
		{"one endless header", connect + "SEND\nx:" + strings.Repeat("y", 20_000), "longer than", "header 1 of SEND is longer than"},
		{"too large", connect + "SEND\n" + good + "\ncontent-length:8193\n\n", "ERROR", "larger than 8192 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := dialAs(other, authority)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(linktest.Timeout))
			if _, err := io.WriteString(conn, tt.input); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(conn)
			if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatal(err)
			}
			if !bytes.Contains(answer, []byte("ERROR\n")) || !bytes.Contains(answer, []byte(tt.want)) {
				t.Errorf("answer is %q, want an ERROR with %q", answer, tt.want)
			}
			conn.Close() // until then the connection has not ended
			logged(t, authority, "peer="+other.Identity().ID, "remote="+conn.LocalAddr().String(), tt.logged)
		})
	}
	other.Put(authority, linktest.Message(t, other, authority, 1))
	if got := authority.Take(1); got["number 1"].Type == "" {
		t.Errorf("got %v", got)
	}
}

// Services that are repeatedly stopped and restarted under load lose no messages.
func TestRestartsUnderLoad(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	testInterruptions(t, authority, other, 6, func(round int) {
		n := []*linktest.Node{authority, other}[round%2]
		if err := n.Stop(); err != nil {
			t.Fatal(err)
		}
		n.Start()
	})
}

// testInterruptions sends messages both ways, in rounds that are interrupted, and
// checks that all are delivered.
func testInterruptions(t *testing.T, authority, other *linktest.Node, rounds int, interrupt func(round int)) {
	t.Helper()
	const each = 500
	for round := range rounds {
		for _, way := range [][2]*linktest.Node{{authority, other}, {other, authority}} {
			way[0].Put(way[1], numbered(t, way[0], way[1], round*each, each)...)
		}
		interrupt(round)
	}
	for _, n := range []*linktest.Node{authority, other} {
		if got := n.Take(rounds * each); len(got) != rounds*each {
			t.Errorf("%v has %d of %d messages", n.Identity(), len(got), rounds*each)
		}
	}
}

// Deactivation ends the link even if the peer's other files have become unusable.
func TestDeactivationDespiteDamage(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	other.Put(authority, linktest.Message(t, other, authority, 1))
	authority.Take(1)
	dir := filepath.Join(authority.Path(), "peers", other.Identity().ID)
	if err := os.WriteFile(filepath.Join(dir, "subnet.txt"), []byte("not a subnet\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "DEACTIVATED"), []byte("2026-11-23\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	linktest.Eventually(t, "the refusal", func() error {
		if !strings.Contains(other.Log.String(), "no active link with you") {
			return errors.New(other.Log.String())
		}
		return nil
	})
}
