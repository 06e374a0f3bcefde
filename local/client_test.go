package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"peerlink/broker/embedded"
	"peerlink/stomp"
)

// The client finds the door by the state folder, and uses the Unix socket, and TCP only
// if the address file has no socket.
func TestDial(t *testing.T) {
	h := newHouse(t, nil)
	a, err := readAddresses(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	for network, a := range map[string]addresses{"unix": a, "tcp": {TCP: a.TCP}} {
		nc, err := a.dial(t.Context(), h.dir)
		if err != nil {
			t.Fatal(err)
		}
		nc.Close()
		if got := nc.RemoteAddr().Network(); got != network {
			t.Errorf("connected by %s, expected %s", got, network)
		}
	}
	if err := writeAddresses(h.dir, addresses{TCP: a.TCP}); err != nil {
		t.Fatal(err)
	}
	h.client().Close()
}

// After a crash, another user that listens on the door's TCP port does not get the
// passcode, and not even a connection. The next door has another passcode, so that one
// which applications have sent there meanwhile is useless. A door that is closed
// normally leaves no passcode, and neither does one that cannot listen because
// another user has the port.
func TestPortTakenAfterCrash(t *testing.T) {
	dir := stateDir(t)
	d, err := openOnly(t, dir, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	old, err := readPasscode(filepath.Join(dir, passcodeFile))
	if err != nil {
		t.Fatal(err)
	}
	left, err := readAddresses(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := readPasscode(filepath.Join(dir, passcodeFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the door, closed normally, with a port that others can take, has left its passcode: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, passcodeFile), []byte(old), 0o600); err != nil { // as after a crash
		t.Fatal(err)
	}
	port, err := net.Listen("tcp", left.TCP)
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	accepted := make(chan struct{})
	go func() {
		if nc, err := port.Accept(); err == nil {
			nc.Close()
			close(accepted)
		}
	}()
	for _, a := range []addresses{left, {TCP: left.TCP}} {
		if err := writeAddresses(dir, a); err != nil { // as after a crash
			t.Fatal(err)
		}
		if _, err := Dial(t.Context(), dir); !errors.Is(err, errNotOpen) {
			t.Errorf("with %v: %v, expected %v", a, err, errNotOpen)
		}
	}
	select {
	case <-accepted:
		t.Error("the client with the passcode has connected to the port of another user")
	default:
	}
	if _, err := openOnly(t, dir, left.TCP); err == nil {
		t.Error("two listen on one port")
	}
	if _, err := readPasscode(filepath.Join(dir, passcodeFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a passcode that may be known, while another user has the port: %v", err)
	}
	if _, err := openOnly(t, dir, ""); err != nil {
		t.Fatal(err)
	}
	secret, err := readPasscode(filepath.Join(dir, passcodeFile))
	if err != nil || secret == old || !isGenerated(secret) {
		t.Errorf("after a crash the passcode is %q, %v; before it was %q", secret, err, old)
	}
}

// A passcode chosen by the operator is kept after a crash, and so is any if there was
// no TCP port.
func TestPasscodeKeptAfterCrash(t *testing.T) {
	for _, tt := range []struct {
		secret string
		last   addresses
	}{
		{"correct-horse-battery", addresses{Unix: socketFile, TCP: "127.0.0.1:1"}},
		{strings.Repeat("A", 26), addresses{Unix: socketFile}},
	} {
		dir := stateDir(t)
		if err := os.WriteFile(filepath.Join(dir, passcodeFile), []byte(tt.secret), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := writeAddresses(dir, tt.last); err != nil {
			t.Fatal(err)
		}
		if _, err := openOnly(t, dir, ""); err != nil {
			t.Fatal(err)
		}
		if got, err := readPasscode(filepath.Join(dir, passcodeFile)); got != tt.secret {
			t.Errorf("the passcode is %q, %v; expected %q", got, err, tt.secret)
		}
	}
}

// A door with a TCP port has a passcode that was never used before, also after a door
// without one. A passcode chosen by the operator is kept.
func TestPasscodeOfTCPIsNew(t *testing.T) {
	for secret, stays := range map[string]bool{strings.Repeat("A", 26): false, "correct-horse-battery": true} {
		dir := stateDir(t)
		if err := os.WriteFile(filepath.Join(dir, passcodeFile), []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := openOnly(t, dir, "none")
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := openOnly(t, dir, "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if got, err := readPasscode(filepath.Join(dir, passcodeFile)); err != nil || (got == secret) != stays {
			t.Errorf("the passcode was %q and is %q, %v; it should have stayed: %v", secret, got, err, stays)
		}
	}
}

// A passcode is replaced by a new one in place, whether or not the door before was closed: if the space of the
// old one was given up, a program that fills the disk could take it, and the door could not be opened. No passcode
// is valid while the door is closed.
func TestPasscodeNeedsNoNewSpace(t *testing.T) {
	dir := stateDir(t)
	path := filepath.Join(dir, passcodeFile)
	var first fs.FileInfo
	used := make(map[string]bool)
	for n := range 3 {
		d, err := openOnly(t, dir, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = info
		}
		secret, err := readPasscode(path)
		if err != nil || used[secret] || !isGenerated(secret) || info.Size() != first.Size() || !os.SameFile(info, first) {
			t.Errorf("door %d: passcode %q, %v, in a file of %d bytes; it must be new, and in the same file of %d bytes", n, secret, err, info.Size(), first.Size())
		}
		used[secret] = true
		if n == 1 {
			if err := d.closeListeners(); err != nil { // like a crash
				t.Fatal(err)
			}
			continue
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if secret, err := readPasscode(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("door %d is closed, and the passcode is %q, %v", n, secret, err)
		}
	}
}

// A generated passcode of which the line ends as in Windows is replaced, and so is the end of the line. A
// passcode behind a symbolic link was chosen by the operator, and what is not a file is no passcode.
func TestPasscodeForms(t *testing.T) {
	old := newPasscode()
	for name, test := range map[string]struct {
		make      func(path string) error
		new, fail bool
	}{
		"Windows": {func(path string) error { return os.WriteFile(path, []byte(old+"\r\n"), 0o600) }, true, false},
		"link": {func(path string) error {
			target := filepath.Join(t.TempDir(), "secret")
			return errors.Join(os.WriteFile(target, []byte(old+"\n"), 0o600), os.Symlink(target, path))
		}, false, false},
		"folder": {func(path string) error { return os.Mkdir(path, 0o700) }, false, true},
	} {
		dir := stateDir(t)
		path := filepath.Join(dir, passcodeFile)
		if err := test.make(path); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			d, err := openOnly(t, dir, "127.0.0.1:0")
			if (err != nil) != test.fail {
				t.Fatalf("%s: %v", name, err)
			}
			if test.fail {
				continue
			}
			if got, err := readPasscode(path); err != nil || (got != old) != test.new {
				t.Errorf("%s: %q, %v; the old one is %q", name, got, err, old)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// If no door is open, Dial returns errNotOpen.
func TestDialNotOpen(t *testing.T) {
	h := newHouse(t, nil)
	a, err := readAddresses(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	h.stop()
	if _, err := Dial(t.Context(), h.dir); !errors.Is(err, errNotOpen) {
		t.Errorf("after Serve: %v, expected %v", err, errNotOpen)
	}
	if err := writeAddresses(h.dir, a); err != nil { // as after a crash
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.dir, passcodeFile), []byte(newPasscode()), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), h.dir); !errors.Is(err, errNotOpen) {
		t.Errorf("after a crash: %v, expected %v", err, errNotOpen)
	}
	if err := os.WriteFile(filepath.Join(h.dir, addressFile), []byte("?"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), h.dir); err == nil || !strings.Contains(err.Error(), "not a list of addresses") {
		t.Errorf("with a damaged file: %v", err)
	}
}

// outcomes collects the arguments of confirmed functions.
type outcomes struct {
	mu   sync.Mutex
	wait sync.WaitGroup
	errs map[int][]error
}

func (o *outcomes) of(n int) func(error) {
	o.wait.Add(1)
	return func(err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.errs == nil {
			o.errs = make(map[int][]error)
		}
		o.errs[n] = append(o.errs[n], err)
		o.wait.Done()
	}
}

// Every confirmed function is called once: with nil for stored messages, with the
// door's reason for the message that it refuses, and with errUnconfirmed for the
// others.
func TestClientSend(t *testing.T) {
	h := newHouse(t, nil)
	c := h.client()
	var results outcomes
	const bad, n = 3000, 10_000
	sent := 0
	for ; sent < n; sent++ {
		typ := "AccountUpdate"
		if sent == bad {
			typ = "PrepareTransfer"
		}
		if err := c.Send(t.Context(), "to_creditors", "00.00.01.05", typ, []byte(strconv.Itoa(sent)), results.of(sent)); err != nil {
			results.wait.Done()
			break
		}
	}
	results.wait.Wait()
	if sent <= bad {
		t.Fatalf("Send has failed at %d, before the bad message: %v", sent, c.Err())
	}
	for i := range sent {
		errs := results.errs[i]
		var refused *stomp.ServerError
		switch {
		case len(errs) != 1:
			t.Fatalf("message %d: confirmed was called with %v, expected one call", i, errs)
		case i < bad && errs[0] != nil:
			t.Fatalf("message %d: %v", i, errs[0])
		case i == bad && (!errors.As(errs[0], &refused) || errors.Is(errs[0], errUnconfirmed)):
			t.Fatalf("bad message: %v, expected the reason of the door", errs[0])
		case i > bad && !errors.Is(errs[0], errUnconfirmed):
			t.Fatalf("message %d after the bad one: %v, expected %v", i, errs[0], errUnconfirmed)
		}
	}
	stats, err := h.store.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := depth(stats, "peer.0"); got != bad {
		t.Errorf("%d messages are stored, expected %d", got, bad)
	}
	if err := c.Send(t.Context(), "to_creditors", "00.00.01.05", "AccountUpdate", nil, func(error) {}); err == nil {
		t.Error("Send works after the connection has ended")
	}
}

func depth(stats embedded.Stats, queue string) int64 {
	for _, q := range stats.Queues {
		if q.Name == queue {
			return q.Depth
		}
	}
	return 0
}

// An application that answers each message, and acknowledges it when the answer is
// confirmed, can process any number of messages: there is no deadlock while both sides
// are flooded. After Disconnect all answers and removals are durable.
func TestClientAnswers(t *testing.T) {
	h := newHouse(t, nil)
	const n = 10_000
	h.publish(1, n)
	for _, mode := range []AckMode{AckIndividual, AckClient} {
		c := h.client()
		sub, err := c.Subscribe(t.Context(), "/queue/accounts_in", 5000, mode)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for i := range n / 2 {
			m, err := sub.Next(ctx)
			if err != nil {
				t.Fatalf("message %d: %v", i, err)
			}
			if m.Type != "PrepareTransfer" || m.RoutingKey != "1.0.1" || len(m.Headers) < 10 {
				t.Fatalf("message %d: %+v", i, m)
			}
			err = c.Send(ctx, "to_creditors", "00.00.01.05", "AccountUpdate", m.Body, func(err error) {
				if err != nil {
					t.Errorf("answer %d: %v", i, err)
				} else if err := sub.Ack(m); err != nil {
					t.Errorf("ACK %d: %v", i, err)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Disconnect(ctx); err != nil {
			t.Fatal(err)
		}
	}
	stats, err := h.store.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if in, out := depth(stats, "accounts_in"), depth(stats, "peer.0"); in != 0 || out != n {
		t.Errorf("%d messages are left and %d are answered, expected 0 and %d", in, out, n)
	}
}

// Disconnect does not wait for a subscription whose Next is not called any more.
func TestDisconnectWhileMessagesCome(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(1, 5000)
	c := h.client()
	sub, err := c.Subscribe(t.Context(), "/queue/accounts_in", 10, AckAuto)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sub.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.Disconnect(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Err(); err == nil {
		t.Error("the connection has not ended")
	}
}

// Subscribe returns although more messages than the subscription takes come before its receipt.
func TestMessagesBeforeReceipt(t *testing.T) {
	const prefetch = 3
	here, there := net.Pipe()
	go func() {
		door := stomp.NewConn(there, frameLimits())
		defer door.Close()
		for {
			f, err := door.ReadFrame()
			if err != nil {
				return
			}
			receipt, _ := f.Get("receipt")
			switch f.Command {
			case "CONNECT":
				_ = door.WriteFrame(stomp.NewFrame("CONNECTED", "version", stomp.Version))
			case "SUBSCRIBE":
				for n := range 2 * prefetch {
					_ = door.WriteFrame(stomp.NewFrame("MESSAGE", "subscription", "0", "message-id", strconv.Itoa(n), "destination", "/queue/accounts_in"))
				}
				_ = door.WriteFrame(stomp.NewFrame("RECEIPT", "receipt-id", receipt))
			}
		}
	}()
	c, err := newClient(t.Context(), here, "secret")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sub, err := c.Subscribe(ctx, "/queue/accounts_in", prefetch, AckAuto)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 * prefetch {
		if _, err := sub.Next(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// All blocked calls return when the connection or their context ends, with the reason.
func TestClientEnds(t *testing.T) {
	h := newHouse(t, nil)
	c := h.client()
	sub, err := c.Subscribe(t.Context(), "/queue/accounts_in", 0, AckClient)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := fmt.Errorf("gone")
	cancel(gone)
	if _, err := sub.Next(ctx); !errors.Is(err, gone) {
		t.Errorf("Next: %v, expected the cause of the end of ctx", err)
	}
	if _, err := c.Subscribe(t.Context(), "/queue/other", 0, AckClient); err == nil || !strings.Contains(err.Error(), "expected /queue/accounts_in") {
		t.Errorf("Subscribe: %v, expected the reason of the door", err)
	}
	var refused *stomp.ServerError
	if _, err := sub.Next(t.Context()); !errors.As(err, &refused) {
		t.Errorf("Next: %v, expected the reason of the door", err)
	}
	if err := sub.Ack(Message{}); !errors.As(err, &refused) {
		t.Errorf("Ack: %v, expected the reason of the door", err)
	}
}

// DialNode connects only to the door of the given node. A door that does not report its node,
// as in earlier versions, is used as well.
func TestDialNode(t *testing.T) {
	h := newHouse(t, func(cfg *Config, _ *bounds) { cfg.Owner = "node A" })
	for owner, ok := range map[string]bool{"node A": true, "": true, "node B": false} {
		c, err := DialNode(t.Context(), h.dir, owner)
		if ok != (err == nil) || !ok && !errors.Is(err, ErrOwner) {
			t.Errorf("%q: %v", owner, err)
		}
		if err == nil {
			c.Close()
		}
	}
	h.stop()
	old := newHouse(t, nil)
	c, err := DialNode(t.Context(), old.dir, "node B")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
