package bench

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"peerlink/link/linktest"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// BenchmarkUnderAttack carries messages of an honest peer to a node, undisturbed
// and while the node is attacked. What the attackers do is a plausible load, not
// all that the machine can do: their own work is part of the figure here, for
// they run in this process too. An operation is a batch of 1,000 messages.
func BenchmarkUnderAttack(b *testing.B) {
	for _, bb := range []struct {
		name    string
		attacks []attack
	}{
		{"undisturbed", nil},
		{"handshakes", []attack{strangers}},
		{"slow", []attack{silence, slowLoris}},
		{"peer", []attack{badPeer}},
		{"all", []attack{strangers, silence, slowLoris, badPeer}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			authority, honest, bad := linktest.New(b, nodetype.AccountingAuthority), linktest.New(b, nodetype.CreditorsAgent), linktest.New(b, nodetype.CreditorsAgent)
			nodetest.Peer(b, authority.Node, honest.Node)
			nodetest.Peer(b, authority.Node, bad.Node)
			authority.Start()
			honest.Start()
			list := messages(b, honest, authority)
			inbox := authority.Identity().Type.Inbox()
			honest.Put(authority, list[:1]...) // the link is up
			waitTotal(b, authority.Store, inbox, 1)

			ctx, stop := context.WithCancel(b.Context())
			var wg sync.WaitGroup
			for _, a := range bb.attacks {
				wg.Go(func() { a(ctx, b, authority, bad) })
			}
			defer wg.Wait()
			defer stop()
			b.ResetTimer()
			for range b.N {
				if err := honest.Store.PutAll(context.Background(), linktest.QueueTo(authority), list); err != nil {
					b.Fatal(err)
				}
			}
			waitTotal(b, authority.Store, inbox, uint64(1+b.N*batch))
			b.StopTimer()
			rate(b, b.N*batch)
		})
	}
}

// attack goes on until ctx ends.
type attack func(ctx context.Context, b *testing.B, authority, bad *linktest.Node)

// every does something so many times a second, until ctx ends.
func every(ctx context.Context, perSecond int, do func()) {
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			do()
		}
	}
}

// strangers shows a certificate that nobody has signed, 50 times a second.
func strangers(ctx context.Context, b *testing.B, authority, bad *linktest.Node) {
	pair, err := tls.LoadX509KeyPair(bad.CertFile, bad.KeyFile)
	if err != nil {
		b.Error(err)
		return
	}
	every(ctx, 50, func() {
		conn, err := tls.Dial("tcp", authority.Addr, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}})
		if err == nil {
			conn.Close()
		}
	})
}

// silence opens 100 connections a second that say nothing, and holds 1,000.
func silence(ctx context.Context, b *testing.B, authority, _ *linktest.Node) {
	held := make(chan net.Conn, 1000)
	defer func() {
		for range len(held) {
			(<-held).Close()
		}
	}()
	every(ctx, 100, func() {
		if len(held) == cap(held) {
			(<-held).Close()
		}
		if conn, err := net.Dial("tcp", authority.Addr); err == nil {
			held <- conn
		}
	})
}

// dial connects as the bad peer, with the beginning of a session.
func dial(b *testing.B, authority, bad *linktest.Node) *tls.Conn {
	pair, err := tls.LoadX509KeyPair(bad.CertFile, bad.KeyFile)
	if err != nil {
		b.Error(err)
		return nil
	}
	p, err := bad.Peer(authority.Identity().ID)
	if err != nil {
		b.Error(err)
		return nil
	}
	pair.Certificate = append(pair.Certificate, p.SubCA.Raw)
	conn, err := tls.Dial("tcp", authority.Addr, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}})
	if err != nil {
		return nil
	}
	fmt.Fprint(conn, "STOMP\naccept-version:1.2\nhost:/\n\n\x00")
	return conn
}

// slowLoris sends a byte of a frame now and then on 5 connections.
func slowLoris(ctx context.Context, b *testing.B, authority, bad *linktest.Node) {
	var conns []*tls.Conn
	for range 5 {
		if conn := dial(b, authority, bad); conn != nil {
			defer conn.Close()
			conns = append(conns, conn)
		}
	}
	every(ctx, 10, func() {
		for _, conn := range conns {
			fmt.Fprint(conn, "S")
		}
	})
}

// badPeer opens a session 10 times a second, and sends what is no message.
func badPeer(ctx context.Context, b *testing.B, authority, bad *linktest.Node) {
	every(ctx, 10, func() {
		if conn := dial(b, authority, bad); conn != nil {
			fmt.Fprint(conn, "SEND\ndestination:/exchange/accounts_in\ntype:ConfigureAccount\nreceipt:1\n\n{}\x00")
			conn.Close()
		}
	})
}
