package stomp

import (
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// serving returns a Server with an open session, for the given client.
func serving(t *testing.T, nc net.Conn, p *peer, cfg ServerConfig) *Server {
	t.Helper()
	type result struct {
		s   *Server
		err error
	}
	opened := make(chan result, 1)
	go func() {
		s, err := NewServer(t.Context(), nc, cfg)
		opened <- result{s, err}
	}()
	p.send("STOMP", "accept-version", "1.2", "host", "/")
	p.expect("CONNECTED")
	r := <-opened
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { r.s.Close() })
	return r.s
}

const send = "SEND\ndestination:/in\n"

// A session opens whatever further headers the client's first frame has, and the server can see them
// before the session opens.
func TestServerSeesHeaders(t *testing.T) {
	nc, p := tcpPeer(t)
	place := make(chan string, 1)
	go NewServer(t.Context(), nc, ServerConfig{OnConnect: func(connect *Frame) {
		value, _ := connect.Get("place")
		place <- value
	}})
	p.send("STOMP", "accept-version", "1.2", "host", "/", "place", "https://x", "place", "https://y", "other", "")
	p.expect("CONNECTED")
	if got := <-place; got != "https://x" {
		t.Errorf("got %q", got)
	}
}

// A message is accepted with any receipt header, also a repeated one. Optional headers
// may be missing, and of a repeated header the first counts.
func TestServerReceives(t *testing.T) {
	nc, p := tcpPeer(t)
	s := serving(t, nc, p, ServerConfig{Destination: "/in"})
	long := strings.Repeat("é", 250)
	p.raw(send + "receipt:tag-9\ntype:T\ncontent-type:a/b\npersistent:true\ncontent-length:2\n\n\x00\x00\x00" +
		"\n\r\n" + send + "receipt:tag-9\ntype:T\n\nbody\x00" +
		"SEND\r\ntype:\r\nreceipt:" + long + "\r\ndestination:/in\r\ndestination:/out\r\nreceipt:other\r\n\r\n\x00")
	for _, want := range []Received{
		{"tag-9", Message{"T", "a/b", []byte{0, 0}}},
		{"tag-9", Message{"T", "application/octet-stream", []byte("body")}},
		{long, Message{"", "application/octet-stream", nil}},
	} {
		got, err := s.Next()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v, %v\nwant %+v", got, err, want)
		}
	}
	for _, id := range []string{"tag-9", "tag-9", long} {
		if err := s.Confirm(id); err != nil {
			t.Fatal(err)
		}
		p.expect("RECEIPT", "receipt-id", id)
	}
}

// Everything that a client must not do is answered by an ERROR that names it, and ends
// the session. Messages before it are received. The ERROR contains the message that has
// caused it, if one has.
func TestServerRefuses(t *testing.T) {
	tests := []struct {
		name, in, message string
		headers           []string // expected headers of ERROR
		body              string
	}{
		{"no receipt", send + "type:T\n\nbody\x00", "SEND has no receipt header", []string{"type", "T"}, "body"},
		{"no type", send + "receipt:7\n\n\x00", "SEND has no type header", []string{"receipt-id", "7"}, ""},
		{"no destination", "SEND\nreceipt:7\ntype:T\n\n\x00", "SEND has no destination header", []string{"receipt-id", "7"}, ""},
		{"other destination", "SEND\nreceipt:7\ntype:T\ndestination:/out\ncontent-type:a/b\n\nbody\x00", `destination of SEND is not "/in"`,
			[]string{"receipt-id", "7", "type", "T", "content-type", "a/b"}, "body"},
		{"second CONNECT", "CONNECT\naccept-version:1.2\n\n\x00", "second CONNECT on one connection", nil, ""},
		{"subscription", "SUBSCRIBE\nid:0\ndestination:/in\n\n\x00", "command SUBSCRIBE is not supported here", nil, ""},
		{"transaction", "BEGIN\ntransaction:1\n\n\x00", "command BEGIN is not supported here", nil, ""},
		{"server's command", "RECEIPT\nreceipt-id:1\n\n\x00", "command RECEIPT is not supported here", nil, ""},
		{"no frame", "hello\n", `"hello" is not a command of capital letters`, nil, ""},
		{"undefined escape", send + "receipt:\\t\n", `header "receipt" of SEND has an undefined escape`, nil, ""},
		{"large body", send + "content-length:8193\n\n", "body of SEND is larger than 8192 bytes", nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			nc, p := tcpPeer(t)
			s := serving(t, nc, p, ServerConfig{Destination: "/in"})
			p.raw(send + "receipt:6\ntype:T\n\n\x00" + tt.in)
			if m, err := s.Next(); err != nil || m.ID != "6" {
				t.Fatalf("got %+v, %v", m, err)
			}
			ended := make(chan error, 1)
			go func() {
				_, err := s.Next()
				ended <- err
			}()
			f := p.expect("ERROR", append([]string{"message", tt.message}, tt.headers...)...)
			if string(f.Body) != tt.body {
				t.Errorf("body %q, want %q", f.Body, tt.body)
			}
			p.expectEnd()
			p.nc.Close()
			if reason := protocolReason(t, <-ended); reason != tt.message {
				t.Errorf("Next gives %q", reason)
			}
			if err := s.Confirm("6"); !errors.Is(err, ErrClosed) {
				t.Errorf("Confirm after ERROR: %v", err)
			}
			if m, err := s.Next(); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("Next after ERROR: %+v, %v", m, err)
			}
		})
	}
}

// A session ends in good order with DISCONNECT, with or without a receipt header, or
// when the client closes its side. Messages received before can still be confirmed, and
// Finish sends the last receipt. The end of the stream inside a frame is an error.
func TestServerEnd(t *testing.T) {
	tests := []struct {
		name, in string
		want     error
		answer   string // receipt for DISCONNECT
	}{
		{"disconnect", "DISCONNECT\nreceipt:x\n\n\x00", io.EOF, "x"},
		{"disconnect like the message", "DISCONNECT\nreceipt:1\n\n\x00\n\n", io.EOF, "1"},
		{"disconnect without receipt", "DISCONNECT\n\n\x00", io.EOF, ""},
		{"close", "", io.EOF, ""},
		{"close after heart-beat", "\n", io.EOF, ""},
		{"half a frame", "SEND\ndest", io.ErrUnexpectedEOF, ""},
		{"half a body", send + "content-length:5\n\nab", io.ErrUnexpectedEOF, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			nc, p := tcpPeer(t)
			s := serving(t, nc, p, ServerConfig{Destination: "/in"})
			p.raw(send + "receipt:1\ntype:T\n\n\x00" + tt.in)
			p.nc.(*net.TCPConn).CloseWrite()
			if _, err := s.Next(); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Next(); !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if tt.want != io.EOF {
				return
			}
			if _, err := s.Next(); err != io.EOF {
				t.Errorf("Next again: %v", err)
			}
			if err := s.Confirm("1"); err != nil {
				t.Error(err)
			}
			if err := s.Finish(); err != nil {
				t.Error(err)
			}
			p.expect("RECEIPT", "receipt-id", "1")
			if tt.answer != "" {
				p.expect("RECEIPT", "receipt-id", tt.answer)
			}
			p.expectEnd()
		})
	}
}

// A server that stops accepts and confirms messages that it has received already, and
// no others. It notifies the client of the end, however much the client continues to
// send.
func TestServerStops(t *testing.T) {
	const message = send + "receipt:1\ntype:T\n\n\x00"
	nc, p := tcpPeer(t)
	s := serving(t, nc, p, ServerConfig{Destination: "/in"})
	p.raw(strings.Repeat(message, 3) + message[:20])
	if _, err := s.Next(); err != nil {
		t.Fatal(err)
	}
	s.StopReading()
	p.raw(message[20:] + strings.Repeat(message, 1000))
	accepted := 1
	_, err := s.Next()
	for ; err == nil; _, err = s.Next() {
		accepted++
	}
	if _, again := s.Next(); !errors.Is(err, ErrStopped) || !errors.Is(again, ErrStopped) {
		t.Errorf("got %v and %v, want ErrStopped", err, again)
	}
	if accepted > 3 {
		t.Errorf("got %d messages, want at most the 3 that were sent before StopReading", accepted)
	}
	if err := s.Confirm("1"); err != nil {
		t.Error(err)
	}
	finished := make(chan error, 1)
	go func() { finished <- s.Finish() }()
	p.expect("RECEIPT", "receipt-id", "1")
	p.expectEnd()
	p.nc.Close()
	if err := <-finished; err != nil {
		t.Errorf("Finish gives %v", err)
	}
}

// StopReading unblocks Next at once, whatever its deadline is, even if heart-beats
// begin later. After DISCONNECT it has no effect.
func TestServerStopsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, p := pipePeer(t)
		s := serving(t, nc, p, ServerConfig{})
		ended := make(chan error, 1)
		go func() {
			_, err := s.Next()
			ended <- err
		}()
		synctest.Wait()
		start := time.Now()
		s.StopReading()
		s.conn.StartHeartBeat(HeartBeat{Receive: time.Hour})
		if err := <-ended; !errors.Is(err, ErrStopped) || time.Since(start) != 0 {
			t.Errorf("got %v after %v, want ErrStopped", err, time.Since(start))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		nc, p := pipePeer(t)
		s := serving(t, nc, p, ServerConfig{})
		go p.send("DISCONNECT", "receipt", "x")
		for range 2 {
			if _, err := s.Next(); err != io.EOF {
				t.Errorf("got %v, want EOF", err)
			}
			s.StopReading()
		}
		go s.Finish()
		p.expect("RECEIPT", "receipt-id", "x")
	})
}

// A client that sends a frame after DISCONNECT gets an ERROR, and no receipt.
func TestServerCommandAfterDisconnect(t *testing.T) {
	nc, p := tcpPeer(t)
	s := serving(t, nc, p, ServerConfig{Destination: "/in"})
	p.raw("DISCONNECT\nreceipt:x\n\n\x00\n" + send + "receipt:1\ntype:T\n\n\x00")
	if _, err := s.Next(); err != io.EOF {
		t.Fatal(err)
	}
	p.expect("ERROR", "message", "SEND after DISCONNECT")
	p.expectEnd()
	p.nc.Close()
	if err := s.Finish(); !errors.Is(err, ErrClosed) {
		t.Errorf("Finish gives %v, want ErrClosed", err)
	}
}

// Fail sends an ERROR with the message that has caused it, after all receipts sent
// before.
func TestServerFail(t *testing.T) {
	nc, p := tcpPeer(t)
	s := serving(t, nc, p, ServerConfig{Destination: "/in"})
	next := make(chan error, 1)
	go func() {
		_, err := s.Next()
		next <- err
	}()
	if err := s.Confirm("6"); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		failed <- s.Fail(&ServerError{Message: "bad message", ReceiptID: "7", Type: "T", ContentType: "a/b", Body: []byte("body")})
	}()
	p.expect("RECEIPT", "receipt-id", "6")
	f := p.expect("ERROR", "message", "bad message", "receipt-id", "7", "type", "T", "content-type", "a/b")
	if string(f.Body) != "body" {
		t.Errorf("body is %q", f.Body)
	}
	if err := <-next; !errors.Is(err, ErrClosed) {
		t.Errorf("Next gives %v, want ErrClosed", err)
	}
	go s.Close() // must not destroy the ERROR
	p.expectEnd()
	p.nc.Close()
	if err := <-failed; err != nil {
		t.Errorf("Fail gives %v", err)
	}
}

// A client that is silent gets an ERROR and is disconnected. After DISCONNECT it may be
// silent until it has its receipt.
func TestServerLosesClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, p := pipePeer(t)
		opened := make(chan *Server, 1)
		go func() {
			s, err := NewServer(t.Context(), nc, ServerConfig{HeartBeat: HeartBeat{Receive: 20 * time.Second}})
			if err != nil {
				t.Error(err)
			}
			opened <- s
		}()
		p.send("STOMP", "accept-version", "1.2", "heart-beat", "10000,0")
		p.expect("CONNECTED", "heart-beat", "0,20000")
		s, start := <-opened, time.Now()
		defer s.Close()
		go p.expect("ERROR", "message", "stomp: peer is silent: nothing received for 35s")
		if _, err := s.Next(); !errors.Is(err, ErrSilent) {
			t.Errorf("got %v, want ErrSilent", err)
		}
		if took := time.Since(start); took != 35*time.Second {
			t.Errorf("took %v, want 35s", took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		nc, p := pipePeer(t)
		s := serving(t, nc, p, ServerConfig{HeartBeat: HeartBeat{Receive: 20 * time.Second}})
		s.conn.StartHeartBeat(HeartBeat{Receive: 20 * time.Second})
		go p.send("DISCONNECT", "receipt", "x")
		if _, err := s.Next(); err != io.EOF {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		go s.Finish()
		p.expect("RECEIPT", "receipt-id", "x")
		p.nc.Close()
	})
}

// A client that never reads its receipts loses the connection in bounded time, with
// bounded memory.
func TestServerClientNeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, p := pipePeer(t)
		s := serving(t, nc, p, ServerConfig{})
		start, n := time.Now(), 0
		id := strings.Repeat("x", 500)
		err := s.Confirm(id)
		for ; err == nil; n++ {
			err = s.Confirm(id)
		}
		if !errors.Is(err, ErrStalled) || time.Since(start) != WriteTimeout {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		if n > 2*maxQueued/500 {
			t.Errorf("%d receipts are waiting", n)
		}
		// The ERROR cannot be written any more, and Fail does not wait.
		if err := s.Fail(&ServerError{Message: "no"}); !errors.Is(err, ErrStalled) {
			t.Errorf("Fail gives %v", err)
		}
	})
}

// Fail and Finish do not wait long for a client that does not read.
func TestServerEndIsBounded(t *testing.T) {
	for name, end := range map[string]func(*Server) error{
		"Fail":   func(s *Server) error { return s.Fail(&ServerError{Message: "no"}) },
		"Finish": func(s *Server) error { return s.Finish() },
	} {
		for _, full := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				nc, p := pipePeer(t)
				s := serving(t, nc, p, ServerConfig{})
				go p.send("DISCONNECT", "receipt", "x")
				if _, err := s.Next(); err != io.EOF {
					t.Fatal(err)
				}
				if full {
					go func() {
						for err := error(nil); err == nil; {
							err = s.Confirm(strings.Repeat("x", 500))
						}
					}()
					synctest.Wait() // until the buffer is full
				}
				start := time.Now()
				if err := end(s); err == nil {
					t.Errorf("%s: no error", name)
				}
				if took := time.Since(start); took > 2*CloseTimeout {
					t.Errorf("%s took %v", name, took)
				}
			})
		}
	}
}
