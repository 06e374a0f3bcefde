package rabbitmq

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
)

// Health reports the current problem: none before the first use, the reason without the
// password while there is no connection, none once there is one.
func TestProblem(t *testing.T) {
	b := openTest(t, "amqp://me:secret@127.0.0.1:1", Options{})
	if err := b.Health(); err != nil {
		t.Errorf("before: %v", err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	done := make(chan error, 1)
	go func() { done <- b.Bind(ctx, testPeer()) }()
	deadline := time.Now().Add(30 * time.Second)
	for b.Health() == nil && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
	if err := b.Health(); err == nil || !strings.Contains(err.Error(), "refused") || strings.Contains(err.Error(), "secret") {
		t.Errorf("without RabbitMQ: %v", err)
	}

	s := rabbittest.Get(t)
	b = openTest(t, s.URL(), Options{})
	q := testPeer()
	if err := b.Bind(testContext(t), q); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Unbind(context.Background(), q) })
	if err := b.Health(); err != nil {
		t.Errorf("connected: %v", err)
	}
}

// A connection that an operator closes is reported only until it is open again, which
// needs no other call: otherwise a service that gets no requests while it is not ready
// would never become ready. Afterwards, an earlier refusal of messages by RabbitMQ is
// not reported any more, either.
func TestProblemEnds(t *testing.T) {
	s := rabbittest.Get(t)
	b := openTest(t, s.URL(), Options{})
	bindAndConsume(t, b)
	openStream(t, b)
	b.health.refusal.Store(&refusal{since: time.Now().Add(-refusalGrace), last: time.Now(), err: broker.ErrUnroutable})
	if err := b.Health(); !errors.Is(err, broker.ErrUnroutable) {
		t.Errorf("got %v, want %v", err, broker.ErrUnroutable)
	}
	if err := s.Control("eval", `[rabbit_networking:close_connection(P, "by the test") || P <- rabbit_networking:connections(), `+
		`[{client_properties, L}] <- [rabbit_networking:connection_info(P, [client_properties])], lists:keymember(<<"peerlink publishing">>, 3, L)].`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "noticing", func() error {
		if err := b.Health(); err == nil || errors.Is(err, broker.ErrUnroutable) {
			return errors.New("no trouble")
		}
		return nil
	})
	eventually(t, "the end of the trouble", b.Health)
}

// A refusal is reported from its first time on, while it is repeated. If the peer whose
// messages were refused does not connect again, the refusal is not reported forever.
func TestRefusalEnds(t *testing.T) {
	now := time.Now()
	first := now.Add(-2 * refusalLasts)
	for _, tt := range []struct {
		last     time.Time
		reported bool
	}{{now, true}, {now.Add(-refusalLasts / 2), true}, {now.Add(-refusalLasts - time.Second), false}} {
		h := new(health)
		h.refusal.Store(&refusal{since: first, last: tt.last, err: broker.ErrUnroutable})
		if err := h.refusedFor(refusalGrace, 1); (err != nil) != tt.reported {
			t.Errorf("last refused %v ago: %v", now.Sub(tt.last), err)
		}
		h.recordRefusal(errNotConfirmed, "")
		// A refusal that was not reported any more begins again, and one that was
		// reported continues.
		if since := h.refusal.Load().since; since.Equal(first) != tt.reported {
			t.Errorf("last refused %v ago, and again: since %v", now.Sub(tt.last), since)
		}
		if err := h.refusedFor(0, 1); err == nil || errors.Is(err, broker.ErrUnroutable) != tt.reported {
			t.Errorf("last refused %v ago, and again: %v", now.Sub(tt.last), err)
		}
	}
}

// A peer whose messages match no binding does not make the service unhealthy, for as long as
// no message of another peer was refused, unless it is the only peer. A reason that concerns
// all messages counts whoever has sent the message.
func TestUnroutableOfOnePeer(t *testing.T) {
	for _, tt := range []struct {
		name     string
		peers    int
		record   func(*health)
		reported bool
	}{
		{"one of two peers", 2, func(h *health) {
			h.recordRefusal(broker.ErrUnroutable, "a")
			h.recordRefusal(broker.ErrUnroutable, "a")
		}, false},
		{"the only peer", 1, func(h *health) { h.recordRefusal(broker.ErrUnroutable, "a") }, true},
		{"two peers", 3, func(h *health) {
			h.recordRefusal(broker.ErrUnroutable, "a")
			h.recordRefusal(broker.ErrUnroutable, "b")
			h.recordRefusal(broker.ErrUnroutable, "b")
		}, true},
		{"one before and one after a stored message", 3, func(h *health) {
			h.recordRefusal(broker.ErrUnroutable, "a")
			h.recordStored()
			h.recordRefusal(broker.ErrUnroutable, "b")
		}, false},
		{"then a reason that concerns all", 2, func(h *health) {
			h.recordRefusal(broker.ErrUnroutable, "a")
			h.recordRefusal(errNotConfirmed, "")
		}, true},
		{"after a reason that concerns all", 2, func(h *health) {
			h.recordRefusal(errNotConfirmed, "")
			h.recordRefusal(broker.ErrUnroutable, "a")
		}, true},
	} {
		h := new(health)
		tt.record(h)
		if err := h.refusedFor(0, tt.peers); (err != nil) != tt.reported {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// If there are more streams and queues than channels on one connection, there are more
// connections.
func TestManyStreams(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL()+"?channel_max=10", Options{})
	inbox := "accounts_in" + suffix()
	o.inbox(inbox)
	for range 25 {
		p := openStream(t, b)
		o.check(p.Publish(testContext(t), incoming(inbox, "", "1")))
		if n, err := p.wait(1); n != 1 || err != nil {
			t.Fatalf("%d confirmed, %v", n, err)
		}
		bindAndConsume(t, b)
	}
	if n := len(b.connections()); n != 3+3+1 {
		t.Errorf("there are %d connections, want 7", n)
	}
}

// anyReturned reports whether a message was returned, even if the channel has ended since,
// and does not block.
func TestAnyReturned(t *testing.T) {
	for _, tt := range []struct {
		returns int
		ended   bool
	}{{0, false}, {0, true}, {2, false}, {2, true}} {
		returned := make(chan amqp.Return, 4)
		for range tt.returns {
			returned <- amqp.Return{}
		}
		if tt.ended {
			close(returned)
		}
		if got := anyReturned(returned); got != (tt.returns > 0) {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}
