package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"peerlink/broker"
)

// A client cannot have more connections, subscriptions and messages than the bounds
// allow, gets an ERROR that says so, and can use again what it has released.
func TestBounds(t *testing.T) {
	h := newHouse(t, func(_ *Config, b *bounds) { b.connections, b.subscriptions, b.prefetch = 2, 2, 150 })

	first, second := h.wire(), h.wire()
	third := h.wireOn(h.dial())
	third.send("CONNECT", "", "accept-version", "1.2", "passcode", h.secret)
	third.expectError("too many connections: 2")
	first.done("DISCONNECT")
	first.expectEnd()

	first = h.wireWhenFree() // in its place
	first.done("SUBSCRIBE", "id", "0", "destination", "/queue/accounts_in", "prefetch-count", "1")
	first.done("SUBSCRIBE", "id", "1", "destination", "/exchange/accounts_in/#", "prefetch-count", "1")
	first.done("UNSUBSCRIBE", "id", "0")
	first.done("SUBSCRIBE", "id", "2", "destination", "/queue/accounts_in", "prefetch-count", "149")
	first.send("SUBSCRIBE", "", "id", "3", "destination", "/queue/accounts_in", "prefetch-count", "1")
	first.expectError("2 subscriptions, which is the limit")

	second.done("SUBSCRIBE", "id", "0", "destination", "/queue/accounts_in")
	second.send("SUBSCRIBE", "", "id", "1", "destination", "/queue/accounts_in", "prefetch-count", "51")
	second.expectError("may be 150 together, and 100 are taken")
}

// wireWhenFree connects as soon as the door has registered the end of another
// connection.
func (h *house) wireWhenFree() *wire {
	h.tb.Helper()
	for deadline := time.Now().Add(patience); ; {
		w := h.wireOn(h.dial())
		w.send("CONNECT", "", "accept-version", "1.2", "passcode", h.secret)
		if f := w.next(); f.Command == "CONNECTED" {
			return w
		} else if time.Now().After(deadline) {
			h.tb.Fatalf("got %s %v, expected CONNECTED", f.Command, f.Headers)
		}
		w.expectEnd()
	}
}

// Two subscriptions of a connection cannot have the same id.
func TestSubscribeTwice(t *testing.T) {
	h := newHouse(t, nil)
	w := h.wire()
	w.done("SUBSCRIBE", "id", "0", "destination", "/queue/accounts_in")
	w.send("SUBSCRIBE", "", "id", "0", "destination", "/queue/accounts_in")
	w.expectError(`id "0", which another subscription of this connection has`)
}

// Clients that do not send a passcode are cut off in time, and do not block clients on
// the other listener.
func TestConnectTimeout(t *testing.T) {
	h := newHouse(t, func(_ *Config, b *bounds) { b.opening, b.connectTime = 2, 300*time.Millisecond })
	for range 5 {
		nc, err := net.Dial("tcp", h.tcp())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.SetReadDeadline(time.Now().Add(patience))
		defer func() {
			if _, err := nc.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("a connection without CONNECT is left open")
			}
		}()
	}
	h.wire().done("SUBSCRIBE", "id", "0", "destination", "/queue/accounts_in")
}

func (h *house) tcp() string {
	for _, a := range h.door.Addrs() {
		if a.Network() == "tcp" {
			return a.String()
		}
	}
	h.tb.Fatal("the door has no TCP address")
	return ""
}

// Whatever bytes are received, before CONNECT or after, the client gets an ERROR, its
// connection ends, and others are still served.
func TestGarbage(t *testing.T) {
	h := newHouse(t, nil)
	for _, garbage := range []string{
		"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n",
		"SEND\nno colon\n\n\x00",
		"SEND\ncontent-length:99999999999\n\n",
		"SEND\ncontent-length:65537\n\n",
		"SUBSCRIBE\nid:\\t\n\n\x00",
		"SEND\n" + strings.Repeat("a:b\n", 101) + "\n\x00",
		strings.Repeat("A", 100_000),
		strings.Repeat("\x00", 30) + "\n",
	} {
		for _, connected := range []bool{false, true} {
			t.Run(fmt.Sprintf("%.20q connected=%v", garbage, connected), func(t *testing.T) {
				nc := h.dial()
				nc.SetDeadline(time.Now().Add(patience))
				want := "ERROR\n"
				if connected {
					fmt.Fprintf(nc, "CONNECT\naccept-version:1.2\npasscode:%s\n\n\x00", h.secret)
					want = "CONNECTED\n"
				}
				go func() {
					io.WriteString(nc, garbage)
					nc.(*net.UnixConn).CloseWrite()
				}()
				answer, err := io.ReadAll(nc)
				if err != nil && len(answer) == 0 || !bytes.HasPrefix(answer, []byte(want)) || !bytes.Contains(answer, []byte("ERROR\n")) {
					t.Errorf("answer: %q (%v), expected an ERROR", answer, err)
				}
			})
		}
	}
	h.wire().done("SUBSCRIBE", "id", "0", "destination", "/queue/accounts_in")
}

// A client that sends and never reads is not read from forever: the memory for it is
// bounded. Others are served meanwhile, and the door can be closed.
func TestNeverReadsReceipts(t *testing.T) {
	h := newHouse(t, func(_ *Config, b *bounds) { b.pending, b.endTime = 64, 2*time.Second })
	nc := h.dial()
	fmt.Fprintf(nc, "CONNECT\naccept-version:1.2\npasscode:%s\n\n\x00", h.secret)
	frame := []byte("SEND\ndestination:" + toPeer + "\ntype:AccountUpdate\ncontent-type:application/json\nreceipt:" +
		strings.Repeat("r", 490) + "\n\n{}\x00")
	frames := 0
	for ; ; frames++ {
		if frames > 50_000 {
			t.Fatalf("the door has taken %d messages of a client that does not read", frames)
		}
		nc.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		if _, err := nc.Write(frame); errors.Is(err, os.ErrDeadlineExceeded) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	w := h.wire()
	w.done("SUBSCRIBE", "id", "0", "destination", "/queue/accounts_in")
	w.done("DISCONNECT")
	w.expectEnd()
	h.stop()
}

// A subscriber that never reads holds at most its prefetch-count, others get the other
// messages, and the door can be closed and return the held messages.
func TestNeverReadsMessages(t *testing.T) {
	h := newHouse(t, func(_ *Config, b *bounds) { b.endTime = 2 * time.Second })
	nc := h.dial()
	fmt.Fprintf(nc, "CONNECT\naccept-version:1.2\npasscode:%s\n\n\x00", h.secret)
	fmt.Fprint(nc, "SUBSCRIBE\nid:0\ndestination:/queue/accounts_in\nack:client\nprefetch-count:300\n\n\x00")
	greeting := make([]byte, 9)
	if _, err := io.ReadFull(nc, greeting); err != nil || string(greeting) != "CONNECTED" {
		t.Fatalf("got %q (%v)", greeting, err)
	}
	const n = 1000
	durable := make(chan error, 1)
	p, err := h.store.Publish(t.Context(), func(got uint64, err error) {
		if got == n || err != nil {
			durable <- err
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	body := strings.Repeat("x", 8000)
	for range n {
		if err := p.Publish(t.Context(), incoming(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-durable; err != nil {
		t.Fatal(err)
	}
	c := h.client()
	sub, err := c.Subscribe(t.Context(), "/queue/accounts_in", 100, AckIndividual)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for i := range n - 300 {
		m, err := sub.Next(ctx)
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if err := sub.Ack(m); err != nil {
			t.Fatal(err)
		}
	}
	h.stop()
	if got := len(h.queued("accounts_in")); got == 0 || got > 300 {
		t.Errorf("inbox holds %d messages, expected those of the client that does not read", got)
	}
}

// A door that stops confirms messages that are being stored, sends the reason, and
// accepts nothing more.
func TestStop(t *testing.T) {
	h := newHouse(t, nil)
	w := h.wire()
	idle := h.wire()
	unlock := h.lockStore()
	for i := range 3 {
		w.sendTo(toPeer, strconv.Itoa(i), "x")
	}
	w.expectNothing(50 * time.Millisecond)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		h.stop()
	}()
	idle.expectError("peerlink is stopping")
	if _, err := Dial(t.Context(), h.dir); !errors.Is(err, errNotOpen) {
		t.Errorf("Dial while the door closes: %v, expected %v", err, errNotOpen)
	}
	unlock()
	for i := range 3 {
		w.expect("RECEIPT", "receipt-id", strconv.Itoa(i))
	}
	w.expectError("peerlink is stopping")
	<-stopped
	if got := len(h.queued("peer.0")); got != 3 {
		t.Errorf("%d messages are stored, expected 3", got)
	}
}

// A door stops in bounded time even if the disk does not respond, and clients do not read; then it
// confirms nothing.
func TestStopWithoutDisk(t *testing.T) {
	for name, change := range map[string]func(*bounds){
		"time for operations":     func(b *bounds) { b.endTime, b.stopTime = 100*time.Millisecond, time.Hour },
		"time for the whole stop": func(b *bounds) { b.endTime, b.stopTime = time.Hour, 200*time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) { testStopWithoutDisk(t, change) })
	}
}

func testStopWithoutDisk(t *testing.T, change func(*bounds)) {
	h := newHouse(t, func(_ *Config, b *bounds) { change(b) })
	w := h.wire()
	unlock := h.lockStore()
	defer unlock()
	w.sendTo(toPeer, "1", "x")
	w.expectNothing(50 * time.Millisecond)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		h.stop()
	}()
	select {
	case f, ok := <-w.frames:
		if ok && f.Command != "ERROR" {
			t.Errorf("got %s %v, expected the end of the connection", f.Command, f.Headers)
		}
	case <-time.After(patience):
		t.Error("the connection does not end")
	}
	select {
	case <-stopped:
	case <-time.After(patience):
		t.Error("the door does not stop")
	}
}

// A client without the passcode cannot fill the log, however often it tries.
func TestRefusalsDoNotFillTheLog(t *testing.T) {
	var out bytes.Buffer
	h := newHouse(t, func(c *Config, _ *bounds) { c.Log = slog.New(slog.NewTextHandler(&out, nil)) })
	for range 100 {
		w := h.wireOn(h.dial())
		w.send("CONNECT", "", "accept-version", "1.2", "passcode", "guess")
		w.expectError("wrong passcode")
	}
	h.stop()
	lines := strings.Count(out.String(), "could not connect")
	if lines == 0 || lines > 40 || !strings.Contains(out.String(), "like_this=") {
		t.Errorf("%d lines in the log:\n%s", lines, &out)
	}
}

// connectTakes returns how long an application with the passcode waits for CONNECTED by
// TCP.
func (h *house) connectTakes() time.Duration {
	h.tb.Helper()
	begin := time.Now()
	nc, err := net.Dial("tcp", h.tcp())
	if err != nil {
		h.tb.Fatal(err)
	}
	w := h.wireOn(nc)
	w.send("CONNECT", "", "accept-version", "1.2", "passcode", h.secret)
	w.expect("CONNECTED")
	return time.Since(begin)
}

// Clients without the passcode cannot keep applications out of the TCP port, neither
// with connections that send nothing nor with wrong passcodes, which are answered after
// a pause: the oldest connections are closed, and the log warns of that.
func TestStrangersKeepNobodyOut(t *testing.T) {
	for name, greeting := range map[string]string{
		"silent":     "",
		"incomplete": "CONNECT\naccept-version:1.2\n",
		"guess":      "CONNECT\naccept-version:1.2\npasscode:AAAAAAAAAAAAAAAAAAAAAAAAAA\n\n\x00",
	} {
		t.Run(name, func(t *testing.T) {
			const opening = 8
			var log bytes.Buffer
			h := newHouse(t, func(c *Config, b *bounds) {
				c.Log = slog.New(slog.NewTextHandler(&log, nil))
				b.opening, b.connectTime, b.guessPause = opening, time.Hour, time.Hour
			})
			var strangers []net.Conn
			for range 4 * opening {
				nc, err := net.Dial("tcp", h.tcp())
				if err != nil {
					t.Fatal(err)
				}
				defer nc.Close()
				if _, err := io.WriteString(nc, greeting); err != nil && len(strangers) == 0 {
					t.Fatal(err)
				}
				strangers = append(strangers, nc)
			}
			if took := h.connectTakes(); took > 5*time.Second {
				t.Errorf("an application waited %v", took)
			}
			for i, nc := range strangers[:2*opening] { // at least these have been closed
				nc.SetReadDeadline(time.Now().Add(patience))
				if _, err := io.Copy(io.Discard, nc); errors.Is(err, os.ErrDeadlineExceeded) { // there may be an ERROR first
					t.Errorf("connection %d was not closed: %v", i, err)
				}
			}
			for _, nc := range strangers {
				nc.Close()
			}
			h.stop()
			if n := strings.Count(log.String(), "have not shown the passcode"); n == 0 || n > 20 {
				t.Errorf("%d warnings in the log:\n%s", n, &log)
			}
		})
	}
}

// stuck blocks while it checks a message.
type stuck struct {
	onlyTypes
	entered, release chan struct{}
}

func (s *stuck) Check(_, _ string, _ *broker.Outgoing) error {
	close(s.entered)
	<-s.release
	return nil
}

// warned is a handler that calls do when a warning is logged.
type warned struct {
	slog.Handler
	do func()
}

func (w *warned) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		w.do()
	}
	return w.Handler.Handle(ctx, r)
}

func (w *warned) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &warned{w.Handler.WithAttrs(attrs), w.do}
}

// A door stops in time even if the handling of a frame does not end. The session is left, which
// the log says.
func TestStopWhileFrameIsHandled(t *testing.T) {
	s := &stuck{entered: make(chan struct{}), release: make(chan struct{})}
	release := sync.OnceFunc(func() { close(s.release) })
	defer release()
	h := newHouse(t, func(c *Config, b *bounds) {
		c.Messages, b.stopTime = s, 50*time.Millisecond
		c.Log = slog.New(&warned{quiet().Handler(), release}) // h.stop checks that the session ends then
	})
	w := h.wire()
	w.sendTo(toPeer, "r", "x")
	<-s.entered
	h.stop()
}
