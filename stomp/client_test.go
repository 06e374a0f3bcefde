package stomp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// receipts records the arguments of OnReceipt.
type receipts struct {
	mu   sync.Mutex
	seen []uint64
}

func (r *receipts) add(n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, n)
}

func (r *receipts) all() []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seen)
}

// connected returns a Client with an open session, and its server.
func connected(t *testing.T, nc net.Conn, p *peer, cfg ClientConfig) *Client {
	t.Helper()
	type result struct {
		c   *Client
		err error
	}
	opened := make(chan result, 1)
	go func() {
		c, err := NewClient(t.Context(), nc, cfg)
		opened <- result{c, err}
	}()
	p.expect("STOMP")
	p.send("CONNECTED", "version", "1.2")
	r := <-opened
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { r.c.Close(); <-r.c.Done() })
	return r.c
}

// sendN sends n messages.
func sendN(t *testing.T, c *Client, n int) {
	t.Helper()
	for range n {
		if _, err := c.Send(t.Context(), Message{Type: "T"}); err != nil {
			t.Fatal(err)
		}
	}
}

// The first frame contains everything that a server may require, and optional headers
// only if they are configured.
func TestClientConnects(t *testing.T) {
	login, passcode := "me", "se:cret"
	base := []Header{{"accept-version", "1.2"}, {"heart-beat", "5000,30000"}, {"host", "h"}}
	for _, tt := range []struct {
		cfg  ClientConfig
		want []Header
	}{
		{ClientConfig{Host: "h"}, base},
		{ClientConfig{Host: "h", Login: &login, Passcode: &passcode},
			append(slices.Clone(base), Header{"login", "me"}, Header{"passcode", "se:cret"})},
		{ClientConfig{Host: "h", Headers: []Header{{"place", "https://x"}}}, append(slices.Clone(base), Header{"place", "https://x"})},
	} {
		nc, p := tcpPeer(t)
		go NewClient(t.Context(), nc, tt.cfg)
		if f := p.expect("STOMP"); !reflect.DeepEqual(f.Headers, tt.want) {
			t.Errorf("got  %q\nwant %q", f.Headers, tt.want)
		}
		p.nc.Close()
	}
}

// Any answer other than CONNECTED 1.2 is an error that describes the answer, and the
// connection is closed.
func TestClientConnectFails(t *testing.T) {
	for answer, want := range map[string]string{
		"ERROR\nmessage:no such host\n\nbody\x00": `stomp: server error "no such host"`,
		"ERROR\n\n\x00":                                `stomp: server error ""`,
		"RECEIPT\nreceipt-id:1\n\n\x00":                "expected CONNECTED, not RECEIPT",
		"CONNECTED\nversion:1.1\n\n\x00":               `version "1.1" of STOMP`,
		"CONNECTED\n\n\x00":                            `version "" of STOMP`,
		"CONNECTED\nversion:1.2\nheart-beat:1\n\n\x00": "heart-beat is not two numbers",
		"HTTP/1.1 400 Bad Request\r\n":                 "not a command",
		"":                                             io.EOF.Error(),
		"CONNECTED\nversion":                           io.ErrUnexpectedEOF.Error(),
		"CONNECTED\nsession:" + strings.Repeat("x", 501) + "\n\n\x00": `value of header "session"`,
	} {
		nc, p := tcpPeer(t)
		go func() {
			p.expect("STOMP")
			p.raw(answer)
			p.nc.(*net.TCPConn).CloseWrite()
		}()
		_, err := NewClient(t.Context(), nc, ClientConfig{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", answer, err, want)
		}
		if _, err := nc.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%q: connection is open: %v", answer, err)
		}
	}
}

// A configuration that does not fit into a frame is an error at once, without secrets
// in its text.
func TestClientConfigUnsendable(t *testing.T) {
	nc, _ := tcpPeer(t)
	passcode := strings.Repeat("secret", 100)
	_, err := NewClient(t.Context(), nc, ClientConfig{Passcode: &passcode})
	if !errors.Is(err, ErrUnsendable) || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

// A message is sent as the transport's specification requires, complete and with its
// number as receipt header.
func TestClientSend(t *testing.T) {
	nc, p := tcpPeer(t)
	c := connected(t, nc, p, ClientConfig{Destination: "/exchange/smp"})
	for i, m := range []Message{
		{"PrepareTransfer", "application/json", []byte("{\x00}")},
		{"a:b", "", nil},
	} {
		n, err := c.Send(t.Context(), m)
		if err != nil || n != uint64(i+1) {
			t.Fatalf("got %d, %v", n, err)
		}
		contentType := m.ContentType
		if contentType == "" {
			contentType = "application/octet-stream"
		}
		f := p.expect("SEND", "destination", "/exchange/smp", "type", m.Type, "content-type", contentType,
			"persistent", "true", "receipt", fmt.Sprint(n), "content-length", fmt.Sprint(len(m.Body)))
		if string(f.Body) != string(m.Body) {
			t.Errorf("body %q, want %q", f.Body, m.Body)
		}
	}
}

// A message that cannot be sent uses no number and does not affect the session.
func TestClientSendUnsendable(t *testing.T) {
	nc, p := tcpPeer(t)
	c := connected(t, nc, p, ClientConfig{})
	for _, m := range []Message{
		{Type: "T", Body: make([]byte, 8193)},
		{Type: strings.Repeat("T", 501)},
		{Type: strings.Repeat(":", 251)},
		{Type: "\xff"},
		{Type: ""},
	} {
		if n, err := c.Send(t.Context(), m); !errors.Is(err, ErrUnsendable) || n != 0 {
			t.Errorf("%.40q: got %d, %v, want ErrUnsendable", m.Type, n, err)
		}
	}
	if n, err := c.Send(t.Context(), Message{Type: "T", Body: make([]byte, 8192)}); n != 1 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	p.expect("SEND", "receipt", "1")
}

// With concurrent calls of Send, numbers are sent in order, each once.
func TestClientSendConcurrently(t *testing.T) {
	const senders, each = 8, 50
	nc, p := tcpPeer(t)
	c := connected(t, nc, p, ClientConfig{})
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() {
			for j := range each {
				typ := fmt.Sprint(i, " ", j)
				if _, err := c.Send(t.Context(), Message{Type: typ}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	next := make([]int, senders)
	for n := range senders * each {
		f := p.expect("SEND", "receipt", fmt.Sprint(n+1))
		typ, _ := f.Get("type")
		var i, j int
		fmt.Sscan(typ, &i, &j)
		if next[i] != j {
			t.Fatalf("sender %d: message %d instead of %d", i, j, next[i])
		}
		next[i]++
	}
	wg.Wait()
}

// A receipt confirms its message and all messages before it, and OnReceipt is called
// with growing numbers. A repeated receipt changes nothing.
func TestReceiptsAreCumulative(t *testing.T) {
	nc, p := tcpPeer(t)
	var got receipts
	c := connected(t, nc, p, ClientConfig{OnReceipt: got.add})
	sendN(t, c, 10)
	for _, id := range []string{"1", "4", "4", "9"} {
		p.send("RECEIPT", "receipt-id", id)
	}
	go func() {
		for range 10 {
			p.expect("SEND")
		}
		p.expect("DISCONNECT", "receipt", "11")
		p.send("RECEIPT", "receipt-id", "10")
		p.send("RECEIPT", "receipt-id", "11")
	}()
	if err := c.Disconnect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []uint64{1, 4, 9, 10}; !slices.Equal(got.all(), want) {
		t.Errorf("got %v, want %v", got.all(), want)
	}
}

// A receipt is accepted only for a message that was sent, and not for one before the
// last confirmed message.
func TestHostileReceipts(t *testing.T) {
	for _, tt := range []struct{ in, reason string }{
		{"RECEIPT\nreceipt-id:4\n\n\x00", `RECEIPT for "4", which was never sent`},
		{"RECEIPT\nreceipt-id:0\n\n\x00", "never sent"},
		{"RECEIPT\nreceipt-id:-1\n\n\x00", "never sent"},
		{"RECEIPT\nreceipt-id:+3\n\n\x00", "never sent"},
		{"RECEIPT\nreceipt-id:3x\n\n\x00", "never sent"},
		{"RECEIPT\nreceipt-id:\n\n\x00", "never sent"},
		{"RECEIPT\nreceipt-id:18446744073709551619\n\n\x00", "never sent"}, // 3 modulo 2^64
		{"RECEIPT\nreceipt-id:3\n\n\x00RECEIPT\nreceipt-id:2\n\n\x00", "RECEIPT for 2 after the one for 3"},
		{"RECEIPT\n\n\x00", "no receipt-id"},
		{"MESSAGE\n\n\x00", "unexpected command MESSAGE"},
		{"CONNECTED\nversion:1.2\n\n\x00", "unexpected command CONNECTED"},
		{"receipt\n\n\x00", "not a command"},
	} {
		nc, p := tcpPeer(t)
		var got receipts
		c := connected(t, nc, p, ClientConfig{OnReceipt: got.add})
		sendN(t, c, 3)
		p.raw(tt.in)
		within(t, "end of session", func() { <-c.Done() })
		if reason := protocolReason(t, c.Err()); !strings.Contains(reason, tt.reason) {
			t.Errorf("%q: got %q, want %q", tt.in, reason, tt.reason)
		}
		for _, n := range got.all() {
			if n != 3 {
				t.Errorf("%q: %d confirmed", tt.in, n)
			}
		}
		if _, err := c.Send(t.Context(), Message{Type: "T"}); err != c.Err() {
			t.Errorf("%q: Send gives %v", tt.in, err)
		}
	}
}

// At most Window messages are in flight. A Send that waits for the window ends with its
// context, without using a number. Every receipt frees as many places as it confirms
// messages.
func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, p := pipePeer(t)
		c := connected(t, nc, p, ClientConfig{Window: 3})
		go io.Copy(io.Discard, p.nc)
		sendN(t, c, 3)

		gone := errors.New("gone")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, gone)
		defer cancel()
		if n, err := c.Send(ctx, Message{Type: "T"}); !errors.Is(err, gone) {
			t.Fatalf("got %d, %v", n, err)
		}
		sent := make(chan uint64, 10)
		for range 3 {
			go func() {
				n, err := c.Send(t.Context(), Message{Type: "T"})
				if err != nil {
					t.Error(err)
				}
				sent <- n
			}()
		}
		synctest.Wait()
		if len(sent) != 0 {
			t.Fatalf("message %d is beyond the window", <-sent)
		}
		p.send("RECEIPT", "receipt-id", "2")
		synctest.Wait()
		if len(sent) != 2 || <-sent+<-sent != 4+5 {
			t.Fatalf("%d more messages sent, want 2", len(sent))
		}
		p.send("RECEIPT", "receipt-id", "5")
		if n := <-sent; n != 6 {
			t.Errorf("sent %d, want 6", n)
		}
	})
}

// Close unblocks all calls: those that wait for the window, for another Send, and for
// the end.
func TestClientCloseUnblocksAllCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, p := pipePeer(t)
		c := connected(t, nc, p, ClientConfig{Window: 1})
		go io.Copy(io.Discard, p.nc)
		sendN(t, c, 1)
		ended := make(chan error, 3)
		for range 2 {
			go func() {
				_, err := c.Send(t.Context(), Message{Type: "T"})
				ended <- err
			}()
		}
		synctest.Wait()
		go func() { ended <- c.Disconnect(t.Context()) }()
		synctest.Wait()
		c.Close()
		c.Close()
		for range 3 {
			if err := <-ended; !errors.Is(err, ErrClosed) {
				t.Errorf("got %v, want ErrClosed", err)
			}
		}
		if <-c.Done(); !errors.Is(c.Err(), ErrClosed) {
			t.Errorf("Err gives %v", c.Err())
		}
	})
}

// An ERROR ends the session. It is attributed to a message only if that is unconfirmed.
func TestClientServerError(t *testing.T) {
	for id, number := range map[string]uint64{"1": 0, "2": 2, "3": 3, "4": 0, "0": 0, "x": 0, "": 0, "02x": 0} {
		nc, p := tcpPeer(t)
		c := connected(t, nc, p, ClientConfig{})
		sendN(t, c, 3)
		p.send("RECEIPT", "receipt-id", "1")
		p.raw("ERROR\nmessage:go away\nreceipt-id:" + id + "\ntype:T\ncontent-type:x/y\n\nbody\x00")
		within(t, "end of session", func() { <-c.Done() })
		want := &ServerError{Message: "go away", MessageNumber: number, ReceiptID: id, Type: "T", ContentType: "x/y", Body: []byte("body")}
		var got *ServerError
		if !errors.As(c.Err(), &got) || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", c.Err(), want)
		}
	}
}

// failingConn is a connection whose writes fail once fail is closed.
type failingConn struct {
	net.Conn
	fail chan struct{}
}

var errWrite = errors.New("connection reset")

func (d failingConn) Write(p []byte) (int, error) {
	select {
	case <-d.fail:
		return 0, errWrite
	default:
		return d.Conn.Write(p)
	}
}

// If the server closes the connection after an ERROR, writes can fail before the
// ERROR has been read. Nevertheless, Send returns the ERROR. Without an ERROR, it
// returns the error of the write.
func TestClientReceivesLastError(t *testing.T) {
	for _, sendsError := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			nc, p := pipePeer(t)
			d := failingConn{nc, make(chan struct{})}
			c := connected(t, d, p, ClientConfig{})
			close(d.fail)
			sendN(t, c, 1)
			synctest.Wait()
			if sendsError {
				p.send("ERROR", "message", "not accepted")
			}
			_, err := c.Send(t.Context(), Message{Type: "T"})
			var serverErr *ServerError
			if sendsError != errors.As(err, &serverErr) || sendsError == errors.Is(err, errWrite) || err != c.Err() {
				t.Errorf("server sends ERROR: %v; got %v", sendsError, err)
			}
		})
	}
}

// If a connection ends without an ERROR, or inside a frame, that is an error as long as
// anything is unconfirmed or DISCONNECT was not sent.
func TestClientServerCloses(t *testing.T) {
	for in, want := range map[string]error{
		"":                               io.EOF,
		"RECEIPT\nreceipt-id:2\n\n\x00":  io.EOF,
		"RECEIPT\nreceipt-id:2\n\n\x00R": io.ErrUnexpectedEOF,
	} {
		nc, p := tcpPeer(t)
		c := connected(t, nc, p, ClientConfig{})
		sendN(t, c, 2)
		p.expect("SEND")
		p.expect("SEND")
		p.raw(in)
		p.nc.Close()
		within(t, "end of session", func() { <-c.Done() })
		if !errors.Is(c.Err(), want) {
			t.Errorf("after %q: got %v, want %v", in, c.Err(), want)
		}
	}
}

// Disconnect succeeds exactly if everything is confirmed: by its own receipt, or by
// others before the server closes. Then Err is nil. The connection is closed in any
// case.
func TestDisconnect(t *testing.T) {
	tests := []struct {
		name   string
		answer func(p *peer)
		want   string
		seen   []uint64
	}{
		{"its receipt confirms all", func(p *peer) { p.send("RECEIPT", "receipt-id", "4") }, "", []uint64{3}},
		{"receipts for all, then end", func(p *peer) { p.send("RECEIPT", "receipt-id", "3"); p.nc.Close() }, "", []uint64{3}},
		{"both", func(p *peer) { p.raw("RECEIPT\nreceipt-id:3\n\n\x00RECEIPT\nreceipt-id:4\n\n\x00") }, "", []uint64{3}},
		{"end with some unconfirmed", func(p *peer) { p.send("RECEIPT", "receipt-id", "2"); p.nc.Close() },
			"stomp: server closed the connection with 1 messages unconfirmed: EOF", []uint64{2}},
		{"error", func(p *peer) { p.send("ERROR", "message", "no") }, `stomp: server error "no"`, nil},
		{"receipt beyond", func(p *peer) { p.send("RECEIPT", "receipt-id", "5") },
			`stomp: protocol error: RECEIPT for "5", which was never sent`, nil},
		{"no answer", func(p *peer) {}, "enough waited", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nc, p := pipePeer(t)
				var got receipts
				c := connected(t, nc, p, ClientConfig{OnReceipt: got.add})
				sendN(t, c, 3)
				go func() {
					for range 3 {
						p.expect("SEND")
					}
					p.expect("DISCONNECT", "receipt", "4")
					tt.answer(p)
				}()
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("enough waited"))
				defer cancel()
				err := c.Disconnect(ctx)
				if err == nil && tt.want != "" || err != nil && err.Error() != tt.want {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				if (c.Err() == nil) != (tt.want == "") {
					t.Errorf("Err gives %v", c.Err())
				}
				if !slices.Equal(got.all(), tt.seen) {
					t.Errorf("confirmed %v, want %v", got.all(), tt.seen)
				}
				if _, err := c.Send(t.Context(), Message{Type: "T"}); err == nil {
					t.Error("Send after Disconnect succeeds")
				}
				if err := c.Disconnect(ctx); (err == nil) != (tt.want == "") {
					t.Errorf("second Disconnect gives %v", err)
				}
				if _, err := p.nc.Write([]byte("\n")); err == nil {
					t.Error("connection is open")
				}
			})
		})
	}
}

// A session in which nothing was sent ends in good order too.
func TestDisconnectWithoutMessages(t *testing.T) {
	nc, p := tcpPeer(t)
	c := connected(t, nc, p, ClientConfig{OnReceipt: func(n uint64) { t.Errorf("%d confirmed", n) }})
	go func() {
		p.expect("DISCONNECT", "receipt", "1")
		p.send("RECEIPT", "receipt-id", "1")
	}()
	if err := c.Disconnect(t.Context()); err != nil {
		t.Error(err)
	}
}

// If a server is silent, or does not read any more, the session ends with the reason,
// and a blocked Send returns.
func TestClientLosesServer(t *testing.T) {
	for _, tt := range []struct {
		beat string
		want error
		took time.Duration
	}{
		{"30000,0", ErrSilent, 45 * time.Second},
		{"0,0", ErrStalled, WriteTimeout + errorWait},
	} {
		synctest.Test(t, func(t *testing.T) {
			nc, p := pipePeer(t)
			go func() {
				p.expect("STOMP")
				p.send("CONNECTED", "version", "1.2", "heart-beat", tt.beat)
			}()
			c, err := NewClient(t.Context(), nc, ClientConfig{Window: 10})
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			for err == nil {
				_, err = c.Send(t.Context(), Message{Type: "T"})
			}
			if !errors.Is(err, tt.want) || err != c.Err() {
				t.Errorf("got %v and %v, want %v", err, c.Err(), tt.want)
			}
			if took := time.Since(start); took != tt.took {
				t.Errorf("took %v, want %v", took, tt.took)
			}
		})
	}
}
