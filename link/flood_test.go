package link_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"peerlink/broker/embedded"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
	"peerlink/stomp"
)

const connectFrame = "STOMP\naccept-version:1.2\nhost:/\n\n\x00"

// sendFrame returns a SEND to an accounting authority with a receipt.
func sendFrame(receipt string, body []byte) string {
	return fmt.Sprintf("SEND\ndestination:/exchange/accounts_in\ntype:ConfigureAccount\ncontent-type:application/json\nreceipt:%s\ncontent-length:%d\n\n%s\x00",
		receipt, len(body), body)
}

// trio makes an authority, an honest peer, and a peer controlled by the test.
func trio(t *testing.T, on linktest.BrokerSetup, change func(authority *linktest.Node)) (authority, honest, bad *linktest.Node) {
	t.Helper()
	authority, honest, bad = linktest.NewOn(t, aa, on), linktest.New(t, ca), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, honest.Node)
	nodetest.Peer(t, authority.Node, bad.Node)
	change(authority)
	authority.Start()
	honest.Start()
	return authority, honest, bad
}

// translated returns a message as the bad peer's service would send it, from an account
// of its second subnet.
func translated(t *testing.T, bad, authority *linktest.Node, n int) []byte {
	t.Helper()
	body := linktest.Message(t, bad, authority, n).Body
	return bytes.Replace(body, fmt.Append(nil, 0x000001_01_00000000), fmt.Append(nil, 0x000002_01_00000000), 1)
}

// flows checks that the honest peer's messages are still delivered.
func flows(t *testing.T, authority, honest *linktest.Node, n int) {
	t.Helper()
	honest.Put(authority, linktest.Message(t, honest, authority, n))
	honest.WaitDrained(authority, 0)
}

// session connects as a peer, and opens a session.
func session(t *testing.T, who, to *linktest.Node) *tls.Conn {
	t.Helper()
	return sessionWith(t, who, to, "")
}

// sessionWith is session with additional headers in the CONNECT frame.
func sessionWith(t *testing.T, who, to *linktest.Node, headers string) *tls.Conn {
	t.Helper()
	conn, err := dialAs(who, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(linktest.Timeout))
	if _, err := io.WriteString(conn, strings.Replace(connectFrame, "host:/\n", "host:/\n"+headers, 1)); err != nil {
		t.Fatal(err)
	}
	f, err := stomp.NewReader(conn, stomp.DefaultLimits()).ReadFrame()
	if err != nil || f.Command != "CONNECTED" {
		t.Fatalf("%+v, %v", f, err)
	}
	return conn
}

// Connections beyond the maximum are refused, and the link is not affected.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	other.Put(authority, linktest.Message(t, other, authority, 1))
	authority.Take(1)
	refused := 0
	for range 12 {
		conn, err := dialAs(other, authority)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(linktest.Timeout))
		if _, err := io.WriteString(conn, connectFrame); err != nil {
			t.Fatal(err)
		}
		f, err := stomp.NewReader(conn, stomp.DefaultLimits()).ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if text, _ := f.Get("message"); f.Command == "ERROR" && strings.Contains(text, "Too many connections") {
			refused++
		}
	}
	if refused != 3 { // 10 are allowed, and the link itself has one
		t.Errorf("%d connections refused, want 3", refused)
	}
	says(t, authority, `msg="connection rejected" peer=`+other.Identity().ID, 3)
	says(t, authority, `reason="Too many connections from one peer."`, 3)
	other.Put(authority, linktest.Message(t, other, authority, 2))
	authority.Take(1)
}

// If a peer has the maximum number of connections, its next connection waits for one time
// slice at most. The messages received on the connection that is ended in its favour are
// confirmed.
func TestOldConnectionsGiveWay(t *testing.T) {
	t.Parallel()
	authority, honest, bad := trio(t, linktest.Embedded, func(n *linktest.Node) {
		n.Config.MaxConnsPerPeer, n.Config.ConnTimeSlice = 3, time.Second
	})
	start := time.Now()
	first := session(t, bad, authority)
	if _, err := io.WriteString(first, sendFrame("1", translated(t, bad, authority, 1))+"SEND\ndest"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		session(t, bad, authority)
	}
	bad.Start()
	bad.Put(authority, linktest.Message(t, bad, authority, 2))
	got := authority.Take(2)
	if took := time.Since(start); took < time.Second {
		t.Errorf("a connection had to give way after %v", took)
	}
	if got["number 1"].Type == "" || got["number 2"].Type == "" {
		t.Errorf("got %v", got)
	}
	answer, err := io.ReadAll(first)
	if err != nil || !bytes.Contains(answer, []byte("receipt-id:1\n")) || bytes.Contains(answer, []byte("ERROR")) {
		t.Errorf("the oldest one ended with %q, %v", answer, err)
	}
	flows(t, authority, honest, 3)
}

// Connections on which nothing, or too little, is sent delay no other client, not even
// from the same address, and are closed in time.
func TestHandshakeFlood(t *testing.T) {
	authority, honest, _ := trio(t, linktest.Embedded, func(n *linktest.Node) {
		n.Config.MaxHandshakes, n.Config.HandshakeTimeout = 8, 3*time.Second
	})
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	var held []net.Conn
	for i := range 60 {
		conn, err := from.Dial("tcp", authority.Addr)
		if err != nil && i == 0 {
			t.Skipf("skipped: a flood from another address of this machine: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i%2 == 0 { // the beginning of a TLS record
			if _, err := conn.Write([]byte{22, 3, 1, 0, 200, 1}); err != nil {
				t.Fatal(err)
			}
		}
		held = append(held, conn)
	}
	start := time.Now()
	for range 10 {
		conn, err := dialAs(honest, authority)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	// If each had to wait for a handshake of the flood to time out, it would take 30
	// seconds, or the handshakes would be dropped.
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("ten handshakes took %v: they waited for the flood", took)
	}
	flows(t, authority, honest, 1)
	for _, conn := range held {
		conn.SetDeadline(time.Now().Add(linktest.Timeout))
		if answer, err := io.ReadAll(conn); err == nil && len(answer) > 0 {
			t.Errorf("got %q", answer)
		}
	}
	for range 3 * maxFloodLines {
		conn, err := from.Dial("tcp", authority.Addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(linktest.Timeout))
		_, _ = io.ReadAll(conn)
		conn.Close()
	}
	if lines := strings.Count(authority.Log.String(), "remote=127.0.0.2"); lines == 0 || lines > maxFloodLines {
		t.Errorf("%d lines about the flood", lines)
	}
}

// maxFloodLines is the maximum number of log lines about a flood, so that the log is not
// flooded.
const maxFloodLines = 40

// A peer must send CONNECT soon after connecting, and one that sends half a frame
// blocks only its own connections.
func TestUnfinishedFrames(t *testing.T) {
	t.Parallel()
	authority, honest, bad := trio(t, linktest.Embedded, func(n *linktest.Node) { n.Config.ConnectTimeout = 300 * time.Millisecond })
	for _, beginning := range []string{"", "STOMP\naccept-version:1.2\n"} {
		conn, err := dialAs(bad, authority)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(linktest.Timeout))
		if _, err := io.WriteString(conn, beginning); err != nil {
			t.Fatal(err)
		}
		if answer, err := io.ReadAll(conn); len(answer) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q is answered with %q, %v", beginning, answer, err)
		}
	}
	for range 10 {
		conn := session(t, bad, authority)
		if _, err := io.WriteString(conn, "SEND\ndestination:/exch"); err != nil {
			t.Fatal(err)
		}
	}
	if conn, err := dialAs(bad, authority); err == nil {
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(linktest.Timeout))
		if answer, err := io.ReadAll(conn); err != nil || !bytes.Contains(answer, []byte("Too many connections")) {
			t.Errorf("the eleventh connection is answered with %q, %v", answer, err)
		}
	}
	flows(t, authority, honest, 1)
}

// Frames after DISCONNECT are ignored.
func TestFrameAfterDisconnect(t *testing.T) {
	t.Parallel()
	authority, honest, bad := trio(t, linktest.Embedded, func(*linktest.Node) {})
	conn := session(t, bad, authority)
	first, second := translated(t, bad, authority, 1), translated(t, bad, authority, 2)
	if _, err := io.WriteString(conn, sendFrame("1", first)+"DISCONNECT\nreceipt:bye\n\n\x00"+sendFrame("2", second)); err != nil {
		t.Fatal(err)
	}
	if answer, _ := io.ReadAll(conn); bytes.Contains(answer, []byte("receipt-id:2")) {
		t.Errorf("answer is %q", answer)
	}
	flows(t, authority, honest, 3)
	got := authority.Take(2)
	if _, ok := got["number 2"]; ok || got["number 1"].Type == "" || got["number 3"].Type == "" {
		t.Errorf("got %v", got)
	}
}

// A peer that keeps sending and never reads its receipts is not read from after a
// bounded number of messages, and does not consume memory.
func TestReceiptsNeverRead(t *testing.T) {
	authority, honest, bad := trio(t, linktest.Embedded, func(n *linktest.Node) { n.Wrap = smallBuffers })
	conn := session(t, bad, authority)
	if err := conn.NetConn().(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	// Small messages with long receipt IDs are the worst case.
	frame := sendFrame(strings.Repeat("r", 480), translated(t, bad, authority, 1))
	flood := bytes.Repeat([]byte(frame), 20)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	sent := 0
	for err := error(nil); err == nil; sent += 20 {
		conn.SetWriteDeadline(time.Now().Add(2 * time.Second)) // nothing was read for this long
		if _, err = conn.Write(flood); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		if sent > 60_000 { // the buffers of both kernels and of this process hold some 30,000 receipts
			t.Fatal("the node still reads from the connection")
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("the node has read %d messages before it stopped, %d KiB", sent, grown>>10)
	if grown > 32<<20 {
		t.Errorf("memory has grown by %d bytes", grown)
	}
	flows(t, authority, honest, 1)
}

// smallBuffers returns a listener whose connections have small kernel buffers, so that
// these fill soon.
func smallBuffers(l net.Listener) net.Listener { return smallListener{l} }

type smallListener struct{ net.Listener }

func (l smallListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok && err == nil {
		err = errors.Join(tcp.SetWriteBuffer(8<<10), tcp.SetReadBuffer(64<<10))
	}
	return conn, err
}

// A peer that floods the node is slowed down once its messages fill its quota: the disk
// does not fill, the connection stays, other peers are not affected. When the
// applications consume messages, the peer continues, and nothing is lost.
func TestDiskFlood(t *testing.T) {
	t.Parallel()
	const quota, count = 400_000, 4000
	authority, honest, bad := trio(t, linktest.EmbeddedWith(embedded.Options{PeerQuota: quota}), func(*linktest.Node) {})
	bad.Start()
	bad.Put(authority, numbered(t, bad, authority, 0, count)...)
	linktest.Eventually(t, "the quota", func() error {
		if log := authority.Log.String(); !strings.Contains(log, "fill its quota") {
			return errors.New(log)
		}
		return nil
	})
	for n := range 5 {
		flows(t, authority, honest, count+n)
	}
	stats, err := authority.Store.Stats(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range stats.Queues {
		// A message takes more than 500 bytes. Those on their way to disk are not
		// counted.
		if most := int64(quota/500 + 1000); q.Name == aa.Inbox() && q.Depth > most {
			t.Errorf("%d messages are stored, want at most %d", q.Depth, most)
		}
	}
	if log := authority.Log.String(); strings.Contains(log, "not receiving any more") {
		t.Errorf("the connection was closed:\n%s", log)
	}
	authority.Take(count + 5)
	bad.WaitDrained(authority, 0)
}

// A peer that floods the node over several connections takes no more of the disk than its
// quota says, however small that is: messages that are not stored yet count too. Its messages have
// the size at which they take the most of the file.
func TestDiskFloodSmallQuota(t *testing.T) {
	t.Parallel()
	const quota, connections, count = 4 << 20, 8, 1500
	authority, _, bad := trio(t, linktest.EmbeddedWith(embedded.Options{PeerQuota: quota}), func(*linktest.Node) {})
	body := bytes.Replace(translated(t, bad, authority, 1), []byte("number 1"), bytes.Repeat([]byte("x"), 1700), 1)
	flood := strings.Repeat(sendFrame("1", body), count)
	for range connections {
		conn := session(t, bad, authority)
		go io.Copy(io.Discard, conn)
		go io.WriteString(conn, flood)
	}
	linktest.Eventually(t, "the quota", func() error {
		if log := authority.Log.String(); !strings.Contains(log, "fill its quota") {
			return errors.New(log)
		}
		return nil
	})
	if err := errors.Join(authority.Stop(), authority.Store.Close()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(authority.StorePath)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.2f of the quota", float64(info.Size())/quota)
	if most := int64(quota*14/10 + 1<<19); info.Size() > most || info.Size() < quota {
		t.Errorf("the store has %d bytes with a quota of %d, want at most %d", info.Size(), quota, most)
	}
}

// A peer cannot send faster than its rate, over any number of connections, and loses
// nothing by trying.
func TestPeerRate(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	authority.Config.MaxRate = 500
	authority.Start()
	other.Start()
	start := time.Now()
	other.Put(authority, numbered(t, other, authority, 0, 1500)...)
	authority.Take(1500)
	// 500 at once, then 500 per second.
	if took := time.Since(start); took < 1900*time.Millisecond {
		t.Errorf("1,500 messages took %v", took)
	}
}

// impostor listens in place of a node, with its certificate, and calls serve with each
// connection.
func impostor(t *testing.T, n *linktest.Node, serve func(*tls.Conn)) (stop func()) {
	t.Helper()
	l, err := tls.Listen("tcp", n.Addr, &tls.Config{Certificates: []tls.Certificate{serverPair(t, n)}, ClientAuth: tls.RequireAnyClientCert})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(linktest.Timeout))
			serve(conn.(*tls.Conn))
			conn.Close()
		}
	}()
	return func() { l.Close(); <-done }
}

// If a server confirms messages that were never sent, the connection ends, and the
// message is sent to the next server that answers. The same applies if the server falls
// silent in the middle, as after a power cut.
func TestHostileServer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, answer, want string
	}{
		{"receipt for a message never sent", "RECEIPT\nreceipt-id:2\n\n\x00", "was never sent"},
		{"receipt for nothing that has a number", "RECEIPT\nreceipt-id:all\n\n\x00", "was never sent"},
		{"receipt for all numbers", "RECEIPT\nreceipt-id:999999999999999999\n\n\x00", "was never sent"},
		{"silence", "", "peer is silent"},
		{"endless header", "RECEIPT\n" + strings.Repeat("x", 20_000), "longer than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			authority, other := linktest.New(t, aa), linktest.New(t, ca)
			nodetest.Peer(t, authority.Node, other.Node)
			stop := impostor(t, authority, func(conn *tls.Conn) {
				r := stomp.NewReader(conn, stomp.DefaultLimits())
				if _, err := r.ReadFrame(); err != nil {
					return
				}
				fmt.Fprint(conn, "CONNECTED\nversion:1.2\nheart-beat:50,50\n\n\x00")
				if _, err := r.ReadFrame(); err != nil {
					return
				}
				fmt.Fprint(conn, tt.answer)
				_, _ = io.Copy(io.Discard, conn)
			})
			other.Config.HeartBeat = stomp.HeartBeat{Send: 50 * time.Millisecond, Receive: 50 * time.Millisecond, Grace: 100 * time.Millisecond}
			other.Start()
			other.Put(authority, linktest.Message(t, other, authority, 1))
			linktest.Eventually(t, "the end of the connection", func() error {
				if log := other.Log.String(); !strings.Contains(log, tt.want) {
					return errors.New(log)
				}
				return nil
			})
			stop()
			authority.Start()
			if got := authority.Take(1); got["number 1"].Type == "" {
				t.Errorf("got %v", got)
			}
			other.WaitDrained(authority, 0)
		})
	}
}

// With default timeouts, a client that sends a byte of a frame each second is cut off
// after 42 seconds, though it is not silent, and a client that never reads its receipts
// while it goes on sending, after a minute at most. The log says why, and honest peers
// are not affected.
func TestCutInTime(t *testing.T) {
	t.Parallel()
	authority, honest, bad := trio(t, linktest.Embedded, func(n *linktest.Node) { n.Wrap = smallBuffers })
	// cut waits until a connection has ended, and returns the reason.
	cut := func(conn *tls.Conn) (why string) {
		t.Helper()
		remote := "remote=" + conn.LocalAddr().String()
		// On a busy machine it takes a while until the buffers are full.
		for deadline := time.Now().Add(2 * linktest.Timeout); why == ""; time.Sleep(16 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the connection does not end: %s", authority.Log)
			}
			for line := range strings.Lines(authority.Log.String()) {
				if strings.Contains(line, "not receiving any more") && strings.Contains(line, remote) {
					why = line
				}
			}
		}
		return why
	}
	begin := time.Now()

	// It promises heart-beats, as services do, which cannot be sent either once its kernel
	// has come to a stop.
	deaf := sessionWith(t, bad, authority, "heart-beat:30000,0\n")
	if err := deaf.NetConn().(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	deaf.SetDeadline(time.Now().Add(4 * linktest.Timeout))
	flood := bytes.Repeat([]byte(sendFrame(strings.Repeat("r", 480), translated(t, bad, authority, 1))), 100)
	var moved atomic.Pointer[time.Time] // when the connection was last read from
	moved.Store(&begin)
	go func() {
		for {
			if _, err := deaf.Write(flood); err != nil {
				return
			}
			now := time.Now()
			moved.Store(&now)
		}
	}()

	slow := session(t, bad, authority)
	slow.SetDeadline(time.Now().Add(2 * linktest.Timeout))
	slowBegin := time.Now()
	answer := make(chan []byte, 1)
	go func() {
		text, _ := io.ReadAll(slow)
		answer <- text
	}()
	if _, err := io.WriteString(slow, "SEND\ndestination:"); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var text []byte
	for n := 0; text == nil; n++ {
		select {
		case <-tick.C:
			_, _ = io.WriteString(slow, "x") // on an error, the answer has been received
			if n == 10 {
				flows(t, authority, honest, 1)
			}
		case text = <-answer:
		}
	}
	if took := time.Since(slowBegin); took < 41*time.Second || took > 70*time.Second || !bytes.Contains(text, []byte("ERROR\n")) {
		t.Errorf("a byte a second was answered after %v with %q", took, text)
	}
	if why := cut(slow); !strings.Contains(why, stomp.ErrSlow.Error()) {
		t.Errorf("a byte a second: %s", why)
	}
	// When its receive buffer is full, a client's kernel does not accept window updates
	// any more: sending may stop in the middle of a frame. Writing or reading may notice it first.
	why := cut(deaf)
	if !slices.ContainsFunc([]string{"does not read", stomp.ErrSlow.Error(), stomp.ErrSilent.Error()}, func(reason string) bool { return strings.Contains(why, reason) }) {
		t.Errorf("a client that does not read: %s", why)
	}
	if took := time.Since(*moved.Load()); took > 80*time.Second {
		t.Errorf("a client that does not read was cut off %v after the node had stopped reading from it", took)
	}
	flows(t, authority, honest, 2)
	for _, p := range authority.Service.Status().Peers {
		if p.ID == bad.Identity().ID && len(p.Connections) > 0 {
			t.Errorf("there are %+v", p.Connections)
		}
	}
}
