package embedded

import (
	"context"
	"errors"
	"strings"
	"testing"

	"peerlink/broker"
)

// send sends a message and waits for the result.
func send(t *testing.T, s *Store, exchange, key, body string) error {
	t.Helper()
	done := make(chan error, 2)
	if err := s.Send(testContext(t), exchange, key, outgoing(body)[0], func(err error) { done <- err }); err != nil {
		return err
	}
	return <-done
}

func peer(id, exchange, key string, queues ...string) broker.PeerBinding {
	return broker.PeerBinding{PeerID: id, Exchange: exchange, BindingKey: key, Fanout: key == "", Queues: queues}
}

// The texts of a message can have printable characters and spaces, but no control
// characters.
func TestTextOfMessage(t *testing.T) {
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	for text, ok := range map[string]bool{" a ~ é ": true, "a\x1f": false, "a\x7f": false, "\xff": false} {
		err := s.Put(testContext(t), "q", broker.Outgoing{Type: text})
		if ok && err != nil || !ok && !errors.Is(err, errInvalid) {
			t.Errorf("type %q: %v", text, err)
		}
	}
}

// An error about one of several messages has its number, and none of them is stored.
func TestPutAllNamesTheMessage(t *testing.T) {
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	err := s.PutAll(testContext(t), "q", []broker.Outgoing{{}, {Type: "\x00"}, {}})
	if !errors.Is(err, errInvalid) || !strings.Contains(err.Error(), "message 2 of 3") {
		t.Errorf("got %v", err)
	}
	wantQueued(t, s, "q")
}

// A message is routed to the queues of all matching bindings and to no others, according
// to the current bindings: also after a change by this process or another one, and after a
// restart. An unroutable message is reported.
func TestSend(t *testing.T) {
	ctx := testContext(t)
	s := openTest(t, Options{})
	a := peer("aa", "to_creditors", "00.00.01.#", "peer.aa.0", "peer.aa.1")
	b := peer("bb", "to_creditors", "00.00.02.#", "peer.bb.0")
	for _, q := range []broker.PeerBinding{a, b, a} {
		if err := s.Bind(ctx, q); err != nil {
			t.Fatal(err)
		}
	}
	check := func(key, body string, queues ...string) {
		t.Helper()
		err := send(t, s, "to_creditors", key, body)
		if len(queues) == 0 {
			if !errors.Is(err, broker.ErrUnroutable) || !strings.Contains(err.Error(), "to_creditors") || !strings.Contains(err.Error(), key) {
				t.Errorf("send %s: got %v, want ErrUnroutable that names the exchange and the key", body, err)
			}
		} else if err != nil {
			t.Errorf("send %s: %v", body, err)
		}
		for _, queue := range []string{"peer.aa.0", "peer.bb.0", "peer.cc.0"} {
			n := strings.Count(strings.Join(queued(t, s, queue), " "), body)
			want := strings.Count(strings.Join(queues, " "), queue)
			if n != want {
				t.Errorf("%s is %d times in %s, want %d", body, n, queue, want)
			}
		}
	}
	check("00.00.01.00.00.00.00.7b", "one", "peer.aa.0")
	check("00.00.02", "two", "peer.bb.0")
	check("00.00.03.00", "three")
	if err := send(t, s, "to_debtors", "00.00.01", "x"); !errors.Is(err, broker.ErrUnroutable) {
		t.Errorf("unknown exchange: got %v, want ErrUnroutable", err)
	}

	// A changed key replaces the old one.
	b.BindingKey = "00.00.03.#"
	if err := s.Bind(ctx, b); err != nil {
		t.Fatal(err)
	}
	check("00.00.02", "four")
	check("00.00.03", "five", "peer.bb.0")

	// Another process binds a third peer with the same key.
	other := openFile(t, s.path, Options{})
	if err := other.Bind(ctx, peer("cc", "to_creditors", "00.00.03.#", "peer.cc.0")); err != nil {
		t.Fatal(err)
	}
	check("00.00.03", "six", "peer.bb.0", "peer.cc.0")

	if err := s.Unbind(ctx, b); err != nil {
		t.Fatal(err)
	}
	check("00.00.03", "seven", "peer.cc.0")
	wantQueued(t, s, "peer.bb.0", "two", "five", "six") // queued messages stay

	s = reopen(t, s)
	check("00.00.03", "eight", "peer.cc.0")
	wantQueued(t, s, "peer.aa.1") // only the first queue is used
}

// A fanout exchange routes to all its peers, for any key.
func TestSendFanout(t *testing.T) {
	s := openTest(t, Options{})
	for _, id := range []string{"aa", "bb"} {
		if err := s.Bind(testContext(t), peer(id, "debtors_out", "", "peer."+id+".0")); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"", "any.key"} {
		if err := send(t, s, "debtors_out", key, "k"+key); err != nil {
			t.Fatal(err)
		}
	}
	wantQueued(t, s, "peer.aa.0", "k", "kany.key")
	wantQueued(t, s, "peer.bb.0", "k", "kany.key")
}

// A message that can not be stored is refused immediately, with errInvalid, and other
// operations of the same transaction are not affected.
func TestInvalid(t *testing.T) {
	ctx := testContext(t)
	s := openTest(t, Options{MaxBody: 100})
	declareTest(t, s, "q")
	p, err := s.Publish(ctx, func(uint64, error) {})
	if err != nil {
		t.Fatal(err)
	}
	unlock := lockFile(t, s) // so that all of them are in one transaction
	good := make(chan error, 2)
	sendGood := func() {
		if err := s.Send(ctx, "to_debtors", "q", outgoing("good")[0], func(err error) { good <- err }); err != nil {
			t.Error(err)
		}
	}
	sendGood()
	long := strings.Repeat("x", 256)
	in := broker.Incoming{Exchange: "accounts_in"}
	for name, do := range map[string]func() error{
		"no exchange":       func() error { return s.Send(ctx, "", "q", broker.Outgoing{}, nil) },
		"long exchange":     func() error { return s.Send(ctx, long, "q", broker.Outgoing{}, nil) },
		"long key":          func() error { return s.Send(ctx, "to_debtors", long, broker.Outgoing{}, nil) },
		"type not UTF-8":    func() error { return s.Send(ctx, "to_debtors", "q", broker.Outgoing{Type: "\xff"}, nil) },
		"NUL in type":       func() error { return s.Send(ctx, "to_debtors", "q", broker.Outgoing{Type: "a\x00"}, nil) },
		"long content type": func() error { return s.Put(ctx, "q", broker.Outgoing{ContentType: long}) },
		"large body":        func() error { return s.Put(ctx, "q", broker.Outgoing{Body: make([]byte, 101)}) },
		"large body among others": func() error {
			return s.PutAll(ctx, "q", []broker.Outgoing{{}, {Body: make([]byte, 101)}})
		},
		"inbox without name": func() error { return p.Publish(ctx, &broker.Incoming{}) },
		"header": func() error {
			m := in
			m.Headers = []broker.Header{{Name: "x", Value: 1.5}}
			return p.Publish(ctx, &m)
		},
		"peer without ID":    func() error { return s.Bind(ctx, peer("", "x", "#", "q")) },
		"peer without queue": func() error { return s.Bind(ctx, peer("aa", "x", "#")) },
		"unnamed queue":      func() error { return s.Bind(ctx, peer("aa", "x", "#", "")) },
		"wildcard":           func() error { return s.Bind(ctx, peer("aa", "x", "00.*", "q")) },
		"fanout with key": func() error {
			return s.Bind(ctx, broker.PeerBinding{PeerID: "aa", Exchange: "x", BindingKey: "00", Fanout: true, Queues: []string{"q"}})
		},
	} {
		if err := do(); !errors.Is(err, errInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
	sendGood()
	unlock()
	for range 2 {
		if err := <-good; err != nil {
			t.Error(err)
		}
	}
	wantQueued(t, s, "q", "good", "good")
}

// Put into a queue that does not exist is an error, and does not create the queue.
func TestPutNoQueue(t *testing.T) {
	ctx := testContext(t)
	s := openTest(t, Options{})
	if err := s.Put(ctx, "nobody", broker.Outgoing{}); !errors.Is(err, broker.ErrNoQueue) {
		t.Errorf("got %v, want ErrNoQueue", err)
	}
	if names, err := s.Queues(ctx); err != nil || len(names) > 0 {
		t.Errorf("queues: %q, %v; want none", names, err)
	}
}

// All methods return ErrClosed after Close, and Close may be called again.
func TestClosed(t *testing.T) {
	ctx := testContext(t)
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	putBodies(t, s, "q", "1")
	c, err := s.Consume(ctx, "q")
	if err != nil {
		t.Fatal(err)
	}
	ds, err := c.Next(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Publish(ctx, func(uint64, error) {})
	if err != nil {
		t.Fatal(err)
	}
	sub, w := s.Subscribe("accounts_in"), s.Watch("accounts_in")
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, do := range map[string]func() error{
		"Bind":          func() error { return s.Bind(ctx, peer("aa", "x", "#", "q")) },
		"Unbind":        func() error { return s.Unbind(ctx, peer("aa", "x", "#", "q")) },
		"Consume":       func() error { _, err := s.Consume(ctx, "q"); return err },
		"New publisher": func() error { _, err := s.Publish(ctx, func(uint64, error) {}); return err },
		"Publish":       func() error { return p.Publish(ctx, &broker.Incoming{Exchange: "x"}) },
		"Send":          func() error { return s.Send(ctx, "x", "", broker.Outgoing{}, nil) },
		"Put":           func() error { return s.Put(ctx, "q", broker.Outgoing{}) },
		"Next":          func() error { _, err := c.Next(ctx, 1); return err },
		"Confirm":       func() error { return c.Confirm(ds[0].Tag) },
		"DeadLetter":    func() error { return c.DeadLetter(ctx, ds[0].Tag, "") },
		"Inbox":         func() error { _, err := sub.Next(ctx, 1); return err },
		"Watch":         func() error { _, _, err := w.Next(ctx); return err },
		"New watch":     func() error { _, _, err := s.Watch("x").Next(ctx); return err },
		"Peek":          func() error { _, err := s.Peek(ctx, "q", 1); return err },
		"List": func() error {
			for _, err := range s.List(ctx, "q") {
				return err
			}
			return nil
		},
		"Stats": func() error { _, err := s.Stats(ctx); return err },
	} {
		if err := do(); !errors.Is(err, broker.ErrClosed) {
			t.Errorf("%s: got %v, want ErrClosed", name, err)
		}
	}
	for name, close := range map[string]func() error{"consumer": c.Close, "publisher": p.Close, "subscription": sub.Close, "watcher": w.Close} {
		if err := close(); err != nil {
			t.Errorf("close %s: %v", name, err)
		}
	}
}

// A call with an ended context returns its error, even if it would not block.
func TestContextEnded(t *testing.T) {
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	putBodies(t, s, "q", "1")
	c, err := s.Consume(testContext(t), "q")
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Publish(testContext(t), func(uint64, error) {})
	if err != nil {
		t.Fatal(err)
	}
	sub, w := s.Subscribe("q2"), s.Watch("q")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for name, do := range map[string]func() error{
		"Next":    func() error { _, err := c.Next(ctx, 1); return err },
		"Inbox":   func() error { _, err := sub.Next(ctx, 1); return err },
		"Watch":   func() error { _, _, err := w.Next(ctx); return err },
		"Publish": func() error { return p.Publish(ctx, &broker.Incoming{Exchange: "x"}) },
		"Send":    func() error { return s.Send(ctx, "to_debtors", "q", broker.Outgoing{}, nil) },
		"Consume": func() error { _, err := s.Consume(ctx, "q"); return err },
	} {
		if err := do(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want context.Canceled", name, err)
		}
	}
	wantQueued(t, s, "q", "1")
}

// Binding that changes nothing needs no transaction: it succeeds while the file can not be written. But it is not
// taken for unchanged while a change of the bindings is in progress.
func TestBindAgain(t *testing.T) {
	s := openTest(t, Options{})
	q := peer("aa", "to_debtors", "12.#", "q")
	if err := s.Bind(testContext(t), q); err != nil {
		t.Fatal(err)
	}
	hangs, resume := make(chan struct{}), make(chan struct{})
	settled, err := s.submitCall(func(*tx) error { close(hangs); <-resume; return nil })
	if err != nil {
		t.Fatal(err)
	}
	<-hangs
	if err := s.Bind(testContext(t), q); err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	for name, other := range map[string]broker.PeerBinding{
		"peer": peer("bb", "to_debtors", "12.#", "q"), "exchange": peer("aa", "to_creditors", "12.#", "q"),
		"key": peer("aa", "to_debtors", "13.#", "q"), "fanout": peer("aa", "to_debtors", "", "q"), "queue": peer("aa", "to_debtors", "12.#", "r"),
	} {
		if s.isBound(testContext(t), other) {
			t.Errorf("another %s: taken for bound", name)
		}
	}
	if err := s.Unbind(ended, q); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if s.isBound(testContext(t), q) {
		t.Error("taken for bound while it is being unbound")
	}
	bound := make(chan error, 1)
	go func() { bound <- s.Bind(testContext(t), q) }()
	close(resume)
	for _, c := range []<-chan error{settled, bound} {
		if err := <-c; err != nil {
			t.Fatal(err)
		}
	}
	if !s.isBound(testContext(t), q) {
		t.Error("not bound")
	}
}
