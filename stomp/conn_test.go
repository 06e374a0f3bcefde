package stomp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// counting counts the writes of a connection.
type counting struct {
	net.Conn
	mu     sync.Mutex
	writes int
}

func (c *counting) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes++
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *counting) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

// A single frame is written immediately. Frames queued during a write are written
// together in the next write, in order.
func TestFramesAreBatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, p := pipePeer(t)
		cnc := &counting{Conn: nc}
		c := NewConn(cnc, Limits{})
		defer c.Close()
		start := time.Now()
		for i := range 1000 {
			if err := c.WriteFrame(NewFrame("RECEIPT", "receipt-id", fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				synctest.Wait() // the first is being written, and is not read yet
			}
		}
		for i := range 1000 {
			p.expect("RECEIPT", "receipt-id", fmt.Sprint(i))
		}
		if n := cnc.count(); n != 2 {
			t.Errorf("%d writes, want 2", n)
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("frames waited %v", waited)
		}
	})
}

// An idle side sends a line end a quarter before each interval is over, so that delays do not
// break the agreement, and a busy side none.
func TestHeartBeatIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, p := pipePeer(t)
		c := NewConn(nc, Limits{})
		defer c.Close()
		start := time.Now()
		c.StartHeartBeat(HeartBeat{Send: 5 * time.Second})
		buf := make([]byte, 100)
		for i := 1; i <= 3; i++ {
			n, err := p.nc.Read(buf)
			if err != nil || string(buf[:n]) != "\n" {
				t.Fatalf("got %q, %v", buf[:n], err)
			}
			if at := time.Since(start); at != time.Duration(i)*3750*time.Millisecond {
				t.Errorf("heart-beat %d after %v", i, at)
			}
		}
		for range 10 {
			time.Sleep(3 * time.Second)
			go c.WriteFrame(NewFrame("ACK"))
			n, err := p.nc.Read(buf)
			if err != nil || buf[0] != 'A' {
				t.Fatalf("got %q, %v", buf[:n], err)
			}
		}
	})
}

// Silence for longer than agreed ends the connection, neither earlier nor later. Any
// byte ends the silence. Without an agreement, silence is not limited. But a frame that
// has begun must be complete in time, whatever was agreed.
func TestSilence(t *testing.T) {
	tests := []struct {
		name   string
		agreed HeartBeat
		sent   []string      // one every 40 seconds
		want   time.Duration // 0: never
		err    error
	}{
		{"at once", HeartBeat{Receive: 30 * time.Second}, nil, 45 * time.Second, ErrSilent},
		{"after heart-beats", HeartBeat{Receive: 30 * time.Second}, []string{"\n", "\n"}, 125 * time.Second, ErrSilent},
		{"inside a frame", HeartBeat{Receive: 30 * time.Second}, []string{"\n", "SEN", "D"}, (80 + 42) * time.Second, ErrSlow},
		{"inside a frame, not agreed", HeartBeat{}, []string{"SEN", "D"}, (40 + 42) * time.Second, ErrSlow},
		{"frame and silence", HeartBeat{Receive: 5 * time.Second, Grace: 36 * time.Second}, []string{"SEN"}, 81 * time.Second, ErrSilent},
		{"other grace", HeartBeat{Receive: 30 * time.Second, Grace: 20 * time.Second}, nil, 50 * time.Second, ErrSilent},
		{"no grace", HeartBeat{Receive: 30 * time.Second, Grace: -1}, nil, 30 * time.Second, ErrSilent},
		{"not agreed", HeartBeat{}, []string{"\n"}, 0, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nc, p := pipePeer(t)
				c := NewConn(nc, Limits{})
				defer c.Close()
				start := time.Now()
				ended := make(chan error, 1)
				go func() {
					_, err := c.ReadFrame()
					ended <- err
				}()
				synctest.Wait()
				c.StartHeartBeat(tt.agreed) // applies to the read in progress
				for _, s := range tt.sent {
					time.Sleep(40 * time.Second)
					p.raw(s)
				}
				if tt.want == 0 {
					time.Sleep(1000 * time.Hour)
					synctest.Wait()
					select {
					case err := <-ended:
						t.Errorf("ended with %v", err)
					default:
					}
					return
				}
				err := <-ended
				if !errors.Is(err, tt.err) {
					t.Errorf("got %v, want %v", err, tt.err)
				}
				if at := time.Since(start); at != tt.want {
					t.Errorf("ended after %v, want %v", at, tt.want)
				}
			})
		})
	}
}

// Deadlines apply only while there is nothing to read: a slow consumer does not lose
// its peer.
func TestSlowReaderIsNotSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, p := pipePeer(t)
		c := NewConn(nc, Limits{})
		defer c.Close()
		c.StartHeartBeat(HeartBeat{Receive: time.Second})
		go p.raw("ACK\n\n\x00")
		time.Sleep(time.Hour)
		if _, err := c.ReadFrame(); err != nil {
			t.Error(err)
		}
	})
}

// The time of one frame does not count for the next, however many are received in one
// read and however slowly each.
func TestSlowFramesInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, p := pipePeer(t)
		c := NewConn(nc, Limits{})
		defer c.Close()
		go func() {
			for range 5 { // a slow frame, and one that comes with its end
				p.raw("ACK\n")
				time.Sleep(40 * time.Second)
				p.raw("\n\x00ACK\n\n\x00")
			}
		}()
		for range 10 {
			if _, err := c.ReadFrame(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A peer that reads nothing uses a bounded amount of memory and time: writers block,
// and then all of them return the reason for the end of the connection.
func TestPeerThatNeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, _ := pipePeer(t)
		c := NewConn(nc, Limits{})
		defer c.Close()
		start := time.Now()
		frame := &Frame{Command: "SEND", Body: make([]byte, 8000)}
		written := 0
		err := c.WriteFrame(frame)
		for ; err == nil; err = c.WriteFrame(frame) {
			written++
		}
		if !errors.Is(err, ErrStalled) {
			t.Errorf("write: got %v, want ErrStalled", err)
		}
		if at := time.Since(start); at != WriteTimeout {
			t.Errorf("ended after %v, want %v", at, WriteTimeout)
		}
		if limit := 2 * (maxQueued/8000 + 1); written > limit {
			t.Errorf("%d frames were queued, want at most %d", written, limit)
		}
		if _, err := c.ReadFrame(); !errors.Is(err, ErrStalled) {
			t.Errorf("read: got %v, want ErrStalled", err)
		}
	})
}

// A queue of exactly the maximum size is full: the next frame waits until there is
// space in the queue, and is written then.
func TestFullQueueBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, p := pipePeer(t)
		c := NewConn(nc, Limits{})
		defer c.Close()
		queue := func(n int) error {
			return c.write(t.Context(), func(dst []byte) ([]byte, error) { return append(dst, make([]byte, n)...), nil })
		}
		if err := queue(1); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // it is being written, and is not read yet
		if err := queue(maxQueued); err != nil {
			t.Fatal(err)
		}
		queued := make(chan error, 1)
		go func() { queued <- queue(1) }()
		synctest.Wait()
		select {
		case err := <-queued:
			t.Errorf("queued beyond the maximum: %v", err)
		default:
		}
		if _, err := io.ReadFull(p.nc, make([]byte, 1+maxQueued+1)); err != nil {
			t.Error(err)
		}
		if err := <-queued; err != nil {
			t.Error(err)
		}
	})
}

// If the peer stops reading, CloseAfterFlush returns that as the reason, also when more
// frames are queued behind the one that was not read.
func TestCloseAfterFlushReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, _ := pipePeer(t)
		c := NewConn(nc, Limits{})
		for range 2 {
			if err := c.WriteFrame(NewFrame("ACK")); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // the first is being written, and the second is queued
		}
		if err := c.CloseAfterFlush(2 * WriteTimeout); !errors.Is(err, ErrStalled) {
			t.Errorf("got %v, want ErrStalled", err)
		}
	})
}

// A peer whose session was never opened has two seconds to read its last frame and to
// close, however long the timeout is.
func TestCloseBeforeOpeningIsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, p := pipePeer(t)
		c := NewConn(halfClosing{nc}, Limits{})
		go p.expect("ERROR", "message", "no")
		start := time.Now()
		if err := c.Fail(&ServerError{Message: "no"}); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("took %v, want 2s", took)
		}
	})
}

// Close unblocks all calls, and leaves no goroutine: otherwise the test would not end.
func TestCloseUnblocksAllCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, _ := pipePeer(t)
		c := NewConn(nc, Limits{})
		c.StartHeartBeat(HeartBeat{Send: time.Second, Receive: time.Hour})
		ended := make(chan error, 3)
		for range 2 {
			go func() {
				var err error
				for err == nil {
					err = c.WriteFrame(&Frame{Command: "SEND", Body: make([]byte, 8000)})
				}
				ended <- err
			}()
		}
		go func() {
			_, err := c.ReadFrame()
			ended <- err
		}()
		synctest.Wait()
		for range 2 {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		for range 3 {
			if err := <-ended; !errors.Is(err, ErrClosed) {
				t.Errorf("got %v, want ErrClosed", err)
			}
		}
		if err := c.WriteFrame(NewFrame("ACK")); !errors.Is(err, ErrClosed) {
			t.Errorf("write after Close: %v", err)
		}
		if err := c.CloseAfterFlush(time.Hour); !errors.Is(err, ErrClosed) {
			t.Errorf("CloseAfterFlush after Close: %v", err)
		}
	})
}

// After Close ReadFrame returns no frames, not even those received before.
func TestCloseEndsReading(t *testing.T) {
	nc, p := pipePeer(t)
	c := NewConn(nc, Limits{})
	go p.raw("ACK\n\n\x00NACK\n\n\x00")
	if _, err := c.ReadFrame(); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if f, err := c.ReadFrame(); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, %v, want ErrClosed", f, err)
	}
}

// A frame that cannot be sent has no effect: those before and after it are delivered.
func TestUnsendableFrame(t *testing.T) {
	nc, p := tcpPeer(t)
	c := NewConn(nc, Limits{})
	defer c.Close()
	for _, id := range []string{"1", strings.Repeat("x", 501), "2"} {
		if err := c.WriteFrame(NewFrame("ACK", "id", id)); errors.Is(err, ErrUnsendable) != (len(id) > 1) {
			t.Errorf("id of %d bytes: %v", len(id), err)
		}
	}
	p.expect("ACK", "id", "1")
	p.expect("ACK", "id", "2")
}

// CloseAfterFlush delivers everything even if the peer has sent data that is not read
// any more: closing a TCP connection with unread data would destroy what the peer has
// not read yet.
func TestCloseAfterFlushDelivers(t *testing.T) {
	const n = 2000
	nc, p := tcpPeer(t)
	c := NewConn(nc, Limits{})
	p.raw(strings.Repeat("\n", 10000))
	for i := range n {
		if err := c.WriteFrame(&Frame{Command: "MESSAGE", Headers: []Header{{"message-id", fmt.Sprint(i)}}, Body: make([]byte, 500)}); err != nil {
			t.Fatal(err)
		}
	}
	closed := make(chan error, 2)
	for range 2 { // the second waits for the first
		go func() { closed <- c.CloseAfterFlush(patience) }()
	}
	for i := range n {
		p.expect("MESSAGE", "message-id", fmt.Sprint(i))
		if i%100 == 0 {
			p.raw("ACK\n\n\x00")
		}
	}
	p.expectEnd()
	p.nc.Close()
	err1, err2 := <-closed, <-closed
	if err1 != nil {
		err1, err2 = err2, err1
	}
	if err1 != nil || !errors.Is(err2, ErrClosed) {
		t.Errorf("got %v and %v, want nil and ErrClosed", err1, err2)
	}
}

// halfClosing is a connection in memory with a CloseWrite that has no effect on the
// other end.
type halfClosing struct{ net.Conn }

func (halfClosing) CloseWrite() error { return nil }

// CloseAfterFlush takes no longer than its timeout, whether the peer does not read or
// does not close, and returns whether everything was written. Other calls are unblocked
// at once. Close does not interrupt it.
func TestCloseAfterFlushIsBounded(t *testing.T) {
	tests := []struct {
		name string
		peer func(p *peer)
		want error
		took time.Duration
	}{
		{"peer does not read", func(p *peer) {}, ErrStalled, 7 * time.Second},
		{"peer does not close", func(p *peer) { p.expect("ACK") }, nil, 7 * time.Second},
		{"peer continues to send", func(p *peer) {
			p.expect("ACK")
			for err := error(nil); err == nil; {
				_, err = io.WriteString(p.nc, "\n")
				time.Sleep(100 * time.Millisecond)
			}
		}, nil, 7 * time.Second},
		{"peer closes", func(p *peer) { p.expect("ACK"); time.Sleep(time.Second); p.nc.Close() }, nil, time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nc, p := pipePeer(t)
				c := NewConn(halfClosing{nc}, Limits{})
				c.StartHeartBeat(HeartBeat{Receive: time.Hour})
				read := make(chan error, 1)
				go func() {
					_, err := c.ReadFrame()
					read <- err
				}()
				c.WriteFrame(NewFrame("ACK"))
				start := time.Now()
				var others sync.WaitGroup
				others.Go(func() { tt.peer(p) })
				others.Go(func() {
					time.Sleep(time.Millisecond)
					c.Close()
				})
				if err := c.CloseAfterFlush(7 * time.Second); !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				if err := <-read; !errors.Is(err, ErrClosed) {
					t.Errorf("read: got %v, want ErrClosed", err)
				}
				p.nc.Close()
				others.Wait()
			})
		})
	}
}

// Accept opens the session for every client of STOMP 1.2, and starts the agreed
// heart-beats.
func TestAccept(t *testing.T) {
	for _, command := range []string{"STOMP", "CONNECT"} {
		synctest.Test(t, func(t *testing.T) {
			nc, p := pipePeer(t)
			c := NewConn(nc, Limits{})
			defer c.Close()
			go p.send(command, "accept-version", "1.0,1.2,2.0", "heart-beat", "0,7000", "login", "me")
			accepted := make(chan error, 1)
			var login string
			go func() {
				accepted <- c.Accept(t.Context(), Acceptance{Check: func(f *Frame) error {
					login, _ = f.Get("login")
					return nil
				}})
			}()
			p.expect("CONNECTED", "version", "1.2", "heart-beat", "5000,30000", "server", "peerlink")
			if err := <-accepted; err != nil || login != "me" {
				t.Fatalf("login %q: %v", login, err)
			}
			start := time.Now()
			p.nc.Read(make([]byte, 1))
			if at := time.Since(start); at != 5250*time.Millisecond {
				t.Errorf("%s: heart-beat after %v, want 5.25s, a quarter before the agreed 7s are over", command, at)
			}
		})
	}
}

// A client that Accept refuses gets the reason, and the connection is closed.
func TestAcceptRefuses(t *testing.T) {
	denied := errors.New("no such user")
	tests := []struct{ name, in, message string }{
		{"other command", "SEND\ndestination:/x\n\n\x00", "expected CONNECT or STOMP first, not SEND"},
		{"no version", "CONNECT\nhost:/\n\n\x00", "accept-version does not have 1.2"},
		{"other versions", "CONNECT\naccept-version:1.0,1.1,1.20\n\n\x00", "accept-version does not have 1.2"},
		{"bad heart-beat", "STOMP\naccept-version:1.2\nheart-beat:-1,5\n\n\x00", "heart-beat is not two numbers of milliseconds up to 999999999"},
		{"no STOMP at all", "GET / HTTP/1.1\r\n\r\n", `"GET / HTTP/1.1" is not a command of capital letters`},
		{"bad login", "STOMP\naccept-version:1.2\n\n\x00", denied.Error()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			nc, p := tcpPeer(t)
			c := NewConn(nc, Limits{})
			accepted := make(chan error, 1)
			go func() {
				accepted <- c.Accept(t.Context(), Acceptance{Check: func(*Frame) error { return denied }})
			}()
			p.raw(tt.in)
			f := p.expect("ERROR", "message", tt.message)
			if strings.Contains(tt.message, "version") {
				if v, _ := f.Get("version"); v != "1.2" {
					t.Errorf("version is %q", v)
				}
			}
			p.expectEnd()
			p.nc.Close()
			if err := <-accepted; !errors.Is(err, denied) && protocolReason(t, err) != tt.message {
				t.Errorf("got %v", err)
			}
		})
	}
}

// An opening handshake whose context ends during its last step has failed, because its
// connection is closed. The cause of the end is returned, unless the step had an error
// of its own.
func TestHandshakeEndsAtLastStep(t *testing.T) {
	gone, own := errors.New("going down"), errors.New("an error of its own")
	for _, step := range []error{nil, own} {
		nc, _ := pipePeer(t)
		c := NewConn(nc, Limits{})
		ctx, cancel := context.WithCancelCause(t.Context())
		err := c.closeOnError(ctx, func() error {
			cancel(gone)
			<-c.closed
			return step
		})
		want := step
		if step == nil {
			want = gone
		}
		if !errors.Is(err, want) {
			t.Errorf("a last step with %v: got %v, want %v", step, err, want)
		}
	}
}

// An opening handshake ends with its context, on both sides and at every stage, and
// returns the cause.
func TestHandshakeIsBounded(t *testing.T) {
	gone := errors.New("going down")
	stages := map[string]func(p *peer){
		"sends nothing":             func(p *peer) { io.Copy(io.Discard, p.nc) },
		"reads nothing":             func(p *peer) {},
		"half a frame":              func(p *peer) { go io.Copy(io.Discard, p.nc); p.raw("STOMP\naccept-ver") },
		"heart-beats only":          func(p *peer) { go io.Copy(io.Discard, p.nc); p.raw("\n\n") },
		"does not read the refusal": func(p *peer) { p.raw("SEND\n\n\x00") },
		"does not read the answer":  func(p *peer) { p.raw("ERROR\nmess") },
	}
	for name, stage := range stages {
		for side, open := range map[string]func(context.Context, net.Conn) error{
			"client": func(ctx context.Context, nc net.Conn) error { _, err := NewClient(ctx, nc, ClientConfig{}); return err },
			"server": func(ctx context.Context, nc net.Conn) error { _, err := NewServer(ctx, nc, ServerConfig{}); return err },
		} {
			t.Run(side+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					for _, cut := range []bool{false, true} {
						nc, p := pipePeer(t)
						ctx, cancel := context.WithCancelCause(t.Context())
						want, limit := ErrConnectTimeout, DefaultConnectTimeout
						if cut {
							want, limit = gone, time.Second
							time.AfterFunc(limit, func() { cancel(gone) })
						}
						var other sync.WaitGroup
						other.Go(func() { stage(p) })
						start := time.Now()
						err := open(ctx, nc)
						var violation *ProtocolError
						if !errors.Is(err, want) && !errors.As(err, &violation) {
							t.Errorf("got %v, want %v", err, want)
						}
						if took := time.Since(start); took > limit {
							t.Errorf("took %v, want at most %v", took, limit)
						}
						p.nc.Close()
						cancel(nil)
						other.Wait()
					}
				})
			})
		}
	}
}

// When the connection ends, unsent data for a peer that does not read is dropped, in
// this process and in the kernel: the peer gets a reset immediately, and not after it
// has read everything.
func TestUnreadIsDropped(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := NewConn(nc, Limits{})
	defer c.Close()
	full := errors.New("the queue was full for one second")
	f := NewFrame("MESSAGE")
	f.Body = make([]byte, 8000)
	for err = nil; err == nil; {
		wait, stop := context.WithTimeoutCause(t.Context(), time.Second, full)
		err = c.write(wait, func(dst []byte) ([]byte, error) { return c.limits.appendFrame(dst, f) })
		stop()
	}
	if !errors.Is(err, full) {
		t.Fatal(err)
	}
	if err := c.CloseAfterFlush(50 * time.Millisecond); !errors.Is(err, ErrStalled) {
		t.Errorf("got %v, want ErrStalled", err)
	}
	peer.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.Copy(io.Discard, peer); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the peer's last read: got %v, want ECONNRESET", err)
	}
}

// Between two writes there is no write deadline, because TLS can write by itself,
// however long ago the last frame was written.
func TestNoWriteDeadlineBetweenWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, p := pipePeer(t)
		dc := &deadlines{Conn: nc}
		c := NewConn(dc, Limits{})
		defer c.Close()
		for range 2 {
			if err := c.WriteFrame(NewFrame("RECEIPT", "receipt-id", "1")); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if dc.last().IsZero() {
				t.Error("a write has no deadline")
			}
			p.expect("RECEIPT", "receipt-id", "1")
			synctest.Wait()
			if last := dc.last(); !last.IsZero() {
				t.Errorf("after a write the deadline is %v", last)
			}
		}
	})
}

// deadlines records the last write deadline.
type deadlines struct {
	net.Conn
	mu    sync.Mutex
	write time.Time
}

func (d *deadlines) SetWriteDeadline(t time.Time) error {
	d.mu.Lock()
	d.write = t
	d.mu.Unlock()
	return d.Conn.SetWriteDeadline(t)
}

func (d *deadlines) last() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.write
}
