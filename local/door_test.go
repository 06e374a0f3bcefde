package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"peerlink/broker"
	"peerlink/broker/embedded"
	"peerlink/stomp"
)

// patience is how long a test waits for an expected event.
const patience = 15 * time.Second

// house is a store with a door, for one test.
type house struct {
	tb     testing.TB
	dir    string // of the state
	store  *embedded.Store
	door   *Door
	secret string

	stop func() // stops Serve, waits until it has returned, and checks that it has left nothing
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// stateDir makes a directory whose path is short enough for a Unix socket.
func stateDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "door")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func openStore(tb testing.TB, dir string) *embedded.Store {
	tb.Helper()
	store, err := embedded.Open(filepath.Join(dir, "messages.db"), embedded.Options{Logger: quiet()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { store.Close() })
	return store
}

// newHouse opens a door and serves it until the test ends. There is one peer, with the
// routing keys 00.00.01.# of exchange to_creditors.
func newHouse(tb testing.TB, change func(*Config, *bounds)) *house {
	tb.Helper()
	h := &house{tb: tb, dir: stateDir(tb)}
	h.store = openStore(tb, h.dir)
	peer := broker.PeerBinding{PeerID: "peer", Exchange: "to_creditors", BindingKey: "00.00.01.#", Queues: []string{"peer.0"}}
	if err := h.store.Bind(tb.Context(), peer); err != nil {
		tb.Fatal(err)
	}
	cfg := Config{
		Store:     h.store,
		StateDir:  h.dir,
		Listen:    "127.0.0.1:0",
		Inbox:     "accounts_in",
		Exchanges: []string{"to_creditors", "to_debtors"},
		Messages:  onlyTypes{"AccountUpdate", "AccountTransfer"},
		Log:       quiet(),
	}
	b := defaultBounds()
	b.guessPause, b.nackPause = time.Millisecond, 20*time.Millisecond
	if change != nil {
		change(&cfg, &b)
	}
	var err error
	if h.door, err = open(cfg, b); err != nil {
		tb.Fatal(err)
	}
	if h.secret, err = readPasscode(filepath.Join(h.dir, passcodeFile)); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- h.door.Serve(ctx) }()
	var stopped atomic.Bool
	h.stop = func() {
		if stopped.Swap(true) {
			return
		}
		cancel()
		select {
		case err := <-served:
			if err != nil {
				tb.Errorf("Serve: %v", err)
			}
			// A goroutine that has reported its end may need a moment to exit.
			deadline := time.Now().Add(patience)
			for all := stacks(); strings.Contains(all, "local.(*session)") || strings.Contains(all, "local.(*Door)"); all = stacks() {
				if time.Now().After(deadline) {
					tb.Errorf("after Serve has returned, goroutines of it are left:\n%s", all)
					break
				}
				runtime.Gosched()
			}
		case <-time.After(patience):
			tb.Fatalf("Serve does not return:\n%s", stacks())
		}
	}
	tb.Cleanup(h.stop)
	return h
}

// onlyTypes refuses messages of other types. (How messages are checked in earnest is tested in
// package link.)
type onlyTypes []string

func (types onlyTypes) Check(_, _ string, m *broker.Outgoing) error {
	if !slices.Contains(types, m.Type) {
		return fmt.Errorf("type %q: not sent by this node", m.Type)
	}
	return nil
}

// Answer answers only the first of the types.
func (types onlyTypes) Answer(m *broker.Outgoing) *broker.Incoming {
	if m.Type != types[0] {
		return nil
	}
	return &broker.Incoming{Exchange: "accounts_in", RoutingKey: "1.0.1", Type: "PrepareTransfer", ContentType: contentType, Body: slices.Concat([]byte("answer to "), m.Body)}
}

func stacks() string {
	buf := make([]byte, 4<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

// dial connects to the door's Unix socket.
func (h *house) dial() net.Conn {
	h.tb.Helper()
	nc, err := net.Dial("unix", filepath.Join(h.dir, socketFile))
	if err != nil {
		h.tb.Fatal(err)
	}
	h.tb.Cleanup(func() { nc.Close() })
	return nc
}

// client returns a connected Client.
func (h *house) client() *Client {
	h.tb.Helper()
	c, err := Dial(h.tb.Context(), h.dir)
	if err != nil {
		h.tb.Fatal(err)
	}
	h.tb.Cleanup(func() { c.Close() })
	return c
}

// publish puts messages with the bodies first to last into the inbox, and returns when
// they are durable.
func (h *house) publish(first, last int) {
	h.tb.Helper()
	n := uint64(last - first + 1)
	durable := make(chan error, 1)
	p, err := h.store.Publish(h.tb.Context(), func(got uint64, err error) {
		if got == n || err != nil {
			durable <- err
		}
	})
	if err != nil {
		h.tb.Fatal(err)
	}
	defer p.Close()
	for i := first; i <= last; i++ {
		if err := p.Publish(h.tb.Context(), incoming(fmt.Sprint(i))); err != nil {
			h.tb.Fatal(err)
		}
	}
	if err := <-durable; err != nil {
		h.tb.Fatal(err)
	}
}

func incoming(body string) *broker.Incoming {
	return &broker.Incoming{
		Exchange:    "accounts_in",
		RoutingKey:  "1.0.1",
		Type:        "PrepareTransfer",
		ContentType: contentType,
		Headers: []broker.Header{
			{Name: "message-type", Value: "PrepareTransfer"},
			{Name: "debtor-id", Value: int64(-4294967296)},
			{Name: "ca-trade", Value: true},
		},
		Body: []byte(body),
	}
}

// queued returns the bodies in a queue or inbox, from the database file.
func (h *house) queued(queue string) []string {
	h.tb.Helper()
	messages, err := h.store.Peek(h.tb.Context(), queue, 1000)
	if err != nil {
		h.tb.Fatal(err)
	}
	bodies := []string{}
	for _, m := range messages {
		bodies = append(bodies, string(m.Body))
	}
	return bodies
}

// wire is a client that sends and receives any frames, valid or not.
type wire struct {
	tb     testing.TB
	conn   *stomp.Conn
	frames chan *stomp.Frame // closed at the end
	err    error             // why; set before frames is closed
}

// wire connects with the passcode. At most one frame is read ahead.
func (h *house) wire() *wire {
	h.tb.Helper()
	w := h.wireOn(h.dial())
	w.send("CONNECT", "", "accept-version", "1.2", "host", "any", "login", "any", "passcode", h.secret)
	w.expect("CONNECTED")
	return w
}

func (h *house) wireOn(nc net.Conn) *wire {
	w := &wire{tb: h.tb, conn: stomp.NewConn(nc, frameLimits()), frames: make(chan *stomp.Frame)}
	quit := make(chan struct{})
	go func() {
		defer close(w.frames)
		for {
			var f *stomp.Frame
			if f, w.err = w.conn.ReadFrame(); w.err != nil {
				return
			}
			select {
			case w.frames <- f:
			case <-quit:
				return
			}
		}
	}()
	h.tb.Cleanup(func() {
		close(quit)
		w.conn.Close()
	})
	return w
}

func (w *wire) send(command, body string, nameValue ...string) {
	w.tb.Helper()
	f := stomp.NewFrame(command, nameValue...)
	f.Body = []byte(body)
	if err := w.conn.WriteFrame(f); err != nil {
		w.tb.Fatalf("%s: %v", command, err)
	}
}

// sendTo sends an AccountUpdate with a receipt header.
func (w *wire) sendTo(destination, receipt, body string) {
	w.tb.Helper()
	w.send("SEND", body, "destination", destination, "type", "AccountUpdate", "content-type", contentType, "receipt", receipt)
}

func (w *wire) next() *stomp.Frame {
	w.tb.Helper()
	select {
	case f, ok := <-w.frames:
		if !ok {
			w.tb.Fatalf("connection has ended: %v", w.err)
		}
		return f
	case <-time.After(patience):
		w.tb.Fatal("no frame comes")
	}
	return nil
}

// expect returns the next frame, which must have this command and headers.
func (w *wire) expect(command string, nameValue ...string) *stomp.Frame {
	w.tb.Helper()
	f := w.next()
	if f.Command != command {
		w.tb.Fatalf("got %s %v %q, expected %s %q", f.Command, f.Headers, f.Body, command, nameValue)
	}
	for _, h := range stomp.NewFrame(command, nameValue...).Headers {
		if got, ok := f.Get(h.Name); !ok || got != h.Value {
			w.tb.Fatalf("%s with header %s=%q (%v), expected %q", command, h.Name, got, ok, h.Value)
		}
	}
	return f
}

// expectMessage returns the ack header of the next frame, which must be a
// MESSAGE with this body.
func (w *wire) expectMessage(body string, nameValue ...string) (ack string) {
	w.tb.Helper()
	f := w.expect("MESSAGE", nameValue...)
	if string(f.Body) != body {
		w.tb.Fatalf("MESSAGE with body %q, expected %q", f.Body, body)
	}
	ack, _ = f.Get("ack")
	return ack
}

// expectNothing checks that no frame is received for a while.
func (w *wire) expectNothing(d time.Duration) {
	w.tb.Helper()
	select {
	case f, ok := <-w.frames:
		if !ok {
			w.tb.Fatalf("connection has ended: %v", w.err)
		}
		w.tb.Fatalf("got %s %v %q, expected nothing", f.Command, f.Headers, f.Body)
	case <-time.After(d):
	}
}

// expectError expects an ERROR with a text like this, and then the end of the
// connection.
func (w *wire) expectError(like string, nameValue ...string) {
	w.tb.Helper()
	f := w.expect("ERROR", nameValue...)
	if text, _ := f.Get("message"); !strings.Contains(text, like) {
		w.tb.Fatalf("ERROR %q, expected %q in it", text, like)
	}
	w.expectEnd()
}

func (w *wire) expectEnd() {
	w.tb.Helper()
	select {
	case f, ok := <-w.frames:
		if ok {
			w.tb.Fatalf("got %s %v, expected the end of the connection", f.Command, f.Headers)
		}
		if !errors.Is(w.err, io.EOF) {
			w.tb.Fatalf("the connection ended with %v, expected %v", w.err, io.EOF)
		}
	case <-time.After(patience):
		w.tb.Fatal("the connection does not end")
	}
	w.conn.Close()
}

// subscribe subscribes to the inbox.
func (w *wire) subscribe(id, ack string, nameValue ...string) {
	w.tb.Helper()
	w.send("SUBSCRIBE", "", append(nameValue, "id", id, "destination", "/queue/accounts_in", "ack", ack)...)
}

// done sends a frame with a receipt header, and waits for the receipt. No MESSAGE may
// be received before.
func (w *wire) done(command string, nameValue ...string) {
	w.tb.Helper()
	w.send(command, "", append(nameValue, "receipt", "done")...)
	w.expect("RECEIPT", "receipt-id", "done")
}
