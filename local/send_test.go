package local

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"peerlink/broker"
	"peerlink/broker/embedded"
)

const toPeer = "/exchange/to_creditors/00.00.01.05.00.00.00.07"

// lockStore prevents the store from committing until unlock is called.
func (h *house) lockStore() (unlock func()) {
	h.tb.Helper()
	db, err := sql.Open("sqlite", filepath.Join(h.dir, "messages.db"))
	if err != nil {
		h.tb.Fatal(err)
	}
	h.tb.Cleanup(func() { db.Close() })
	conn, err := db.Conn(context.Background())
	if err != nil {
		h.tb.Fatal(err)
	}
	for _, statement := range []string{"PRAGMA busy_timeout = 10000", "BEGIN IMMEDIATE"} {
		if _, err := conn.ExecContext(context.Background(), statement); err != nil {
			h.tb.Fatal(err)
		}
	}
	return func() {
		h.tb.Helper()
		if _, err := conn.ExecContext(context.Background(), "ROLLBACK"); err != nil {
			h.tb.Fatal(err)
		}
	}
}

// A message is stored unchanged in the queue of the peer whose range contains its
// routing key, and each requested receipt is sent.
func TestSend(t *testing.T) {
	h := newHouse(t, nil)
	w := h.wire()
	for i := range 3 {
		w.sendTo(toPeer, fmt.Sprintf("r:%d", i), fmt.Sprint(i))
	}
	w.send("SEND", "3", "destination", "/exchange/to%5fcreditors/00.00.01", "type", "AccountTransfer",
		"content-type", contentType, "persistent", "false", "anything", "else")
	w.sendTo(toPeer, "last", "4")
	for _, receipt := range []string{"r:0", "r:1", "r:2", "last"} {
		w.expect("RECEIPT", "receipt-id", receipt)
	}
	messages, err := h.store.Peek(t.Context(), "peer.0", 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(messages) != 5 {
		t.Fatalf("%d messages are stored, expected 5", len(messages))
	}
	for i, m := range messages {
		if string(m.Body) != fmt.Sprint(i) || m.ContentType != contentType || (m.Type == "AccountTransfer") != (i == 3) {
			t.Errorf("message %d is stored as %+v", i, m)
		}
	}
}

// A request that is not allowed is answered with an ERROR that says why, with its
// receipt-id, and the connection is closed. Everything accepted before is confirmed
// first, and nothing of a refused request is stored.
func TestRefused(t *testing.T) {
	type headers = []string
	send := func(destination string, more ...string) headers {
		return append(headers{"destination", destination, "type", "AccountUpdate", "content-type", contentType}, more...)
	}
	subscribe := func(more ...string) headers {
		return append(more, "id", "0", "destination", "/queue/accounts_in")
	}
	for _, c := range []struct {
		name    string
		command string
		headers headers
		body    string
		like    string
	}{
		{"exchange of another node type", "SEND", send("/exchange/creditors_out/00"), "", "with exchange to_creditors or to_debtors"},
		{"into the inbox", "SEND", send("/exchange/accounts_in/1.0"), "", "the inbox accepts messages of peers only"},
		{"to a queue", "SEND", send("/queue/peer.0"), "", "expected /exchange/<exchange>/<routing key>"},
		{"broken escape", "SEND", send("/exchange/to_creditors/%0"), "", "does not begin an escape"},
		{"routing key too long", "SEND", send("/exchange/to_creditors/" + strings.Repeat("a", 300)), "", "at most 255"},
		{"no destination", "SEND", headers{"type", "AccountUpdate"}, "", "SEND without destination header"},
		{"no type", "SEND", headers{"destination", toPeer, "content-type", contentType}, "", "SEND without type header"},
		{"wrong direction", "SEND", headers{"destination", toPeer, "type", "PrepareTransfer", "content-type", contentType}, "", `SEND to ` + toPeer + `: type "PrepareTransfer": not sent by this node`},
		{"no content type", "SEND", headers{"destination", toPeer, "type", "AccountUpdate"}, "", "SEND without content-type header"},
		{"other content type", "SEND", headers{"destination", toPeer, "type", "AccountUpdate", "content-type", "text/plain"}, "", "expected application/json"},
		{"other character set", "SEND", headers{"destination", toPeer, "type", "AccountUpdate", "content-type", "application/json; charset=latin1"}, "", "expected application/json"},
		{"CONNECT again", "CONNECT", headers{"accept-version", "1.2"}, "", "open already"},
		{"unknown", "HELLO", nil, "", "HELLO: expected SEND"},
		{"long id", "SUBSCRIBE", headers{"id", strings.Repeat("i", 2024), "destination", "/queue/accounts_in"}, "", "at most 2023"},
		{"without destination", "SUBSCRIBE", headers{"id", "0"}, "", "SUBSCRIBE without destination header"},
		{"other queue", "SUBSCRIBE", headers{"id", "0", "destination", "/queue/peer.0"}, "", "expected /queue/accounts_in"},
		{"some keys", "SUBSCRIBE", headers{"id", "0", "destination", "/exchange/accounts_in/1.0.#"}, "", "/exchange/accounts_in/# for copies"},
		{"ack", "SUBSCRIBE", subscribe("ack", "sometimes"), "", "expected auto, client or client-individual"},
		{"acknowledged copies", "SUBSCRIBE", headers{"id", "0", "destination", "/exchange/accounts_in/#", "ack", "client"}, "", "copies are not acknowledged"},
		{"prefetch 65536", "SUBSCRIBE", subscribe("prefetch-count", "65536"), "", "from 1 to 65535, or 0"},
		{"prefetch -1", "SUBSCRIBE", subscribe("prefetch-count", "-1"), "", "from 1 to 65535, or 0"},
		{"prefetch many", "SUBSCRIBE", subscribe("prefetch-count", "many"), "", "from 1 to 65535, or 0"},
		{"UNSUBSCRIBE of nothing", "UNSUBSCRIBE", nil, "", "UNSUBSCRIBE without id or destination"},
		{"UNSUBSCRIBE of a destination", "UNSUBSCRIBE", headers{"destination", "/queue/accounts_in"}, "", "no such subscription"},
		{"UNSUBSCRIBE", "UNSUBSCRIBE", headers{"id", "0"}, "", "no such subscription"},
		{"ACK", "ACK", headers{"id", "1@0"}, "", `ACK of "1@0": expected the ack header (or message-id) of a message that this connection holds`},
		{"ACK without id", "ACK", nil, "", "ACK without id or message-id header"},
		{"ACK of a message-id", "ACK", headers{"message-id", "x-1"}, "", "that this connection holds"},
		{"NACK", "NACK", headers{"id", "nonsense"}, "", "that this connection holds"},
		{"NACK with requeue", "NACK", headers{"id", "1@0", "requeue", "maybe"}, "", "expected true or false"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t, nil)
			w := h.wire()
			w.sendTo(toPeer, "before", "before")
			w.send(c.command, c.body, append(c.headers, "receipt", "the one")...)
			w.expect("RECEIPT", "receipt-id", "before")
			w.expectError(c.like, "receipt-id", "the one")
			if got := h.queued("peer.0"); !slices.Equal(got, []string{"before"}) {
				t.Errorf("stored: %q", got)
			}
		})
	}
}

// No receipt is sent before the message is on disk. After the receipt, another process
// can read the message from the file.
func TestReceiptMeansDurable(t *testing.T) {
	h := newHouse(t, nil)
	w := h.wire()
	unlock := h.lockStore()
	w.sendTo(toPeer, "1", "a")
	w.expectNothing(200 * time.Millisecond)
	unlock()
	w.expect("RECEIPT", "receipt-id", "1")
	other, err := embedded.Open(filepath.Join(h.dir, "messages.db"), embedded.Options{Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if messages, err := other.Peek(t.Context(), "peer.0", 10); err != nil || len(messages) != 1 {
		t.Errorf("another process sees %v (%v), expected one message", messages, err)
	}
}

// A message for which there is no peer is confirmed, and does not end the connection: it is
// answered in the inbox, or set aside in the queue for such messages of its exchange.
func TestUnroutable(t *testing.T) {
	h := newHouse(t, nil)
	w := h.wire()
	unlock := h.lockStore() // so that all share a transaction
	w.sendTo(toPeer, "1", "1")
	w.sendTo("/exchange/to_creditors/ff.00", "2", "2")
	w.send("SEND", "3", "destination", "/exchange/to_creditors/ff.01", "type", "AccountTransfer", "content-type", contentType, "receipt", "3")
	w.send("SEND", "4", "destination", "/exchange/to_debtors", "type", "AccountTransfer", "content-type", contentType, "receipt", "4")
	w.sendTo(toPeer, "5", "5")
	unlock()
	for _, receipt := range []string{"1", "2", "3", "4", "5"} {
		w.expect("RECEIPT", "receipt-id", receipt)
	}
	for queue, want := range map[string][]string{
		"peer.0":                  {"1", "5"},
		"accounts_in":             {"answer to 2"},
		"to_creditors.unroutable": {"3: no active peer's range contains the routing key"},
		"to_debtors.unroutable":   {"4: no active peer's range contains the routing key"},
	} {
		if got := append(h.queued(queue), h.aside(queue)...); !slices.Equal(got, want) {
			t.Errorf("%s has %q, expected %q", queue, got, want)
		}
	}
	h.wantCounts(map[string]uint64{"stored": 2, "answered": 1, "unroutable": 2, "refused": 0, "invalid": 0})
}

// With the header that asks for it, a message that could never be sent is confirmed, and set
// aside with the reason: in the queue of the peer, or, if there is none, in that for such
// messages. What is not valid even as a frame is refused nevertheless.
func TestSetAsideInvalid(t *testing.T) {
	h := newHouse(t, nil)
	w := h.wire()
	for i, destination := range []string{toPeer, "/exchange/to_debtors/00"} {
		receipt := fmt.Sprint(i)
		w.send("SEND", "x", "destination", destination, "type", "Wrong", "content-type", contentType, "receipt", receipt, "if-invalid", "set-aside")
		w.expect("RECEIPT", "receipt-id", receipt)
	}
	w.send("SEND", "valid", "destination", toPeer, "type", "AccountUpdate", "content-type", contentType, "receipt", "2", "if-invalid", "set-aside")
	w.expect("RECEIPT", "receipt-id", "2")
	for _, queue := range []string{"peer.0", "to_debtors.unroutable"} {
		if got := h.aside(queue); !slices.Equal(got, []string{`x: type "Wrong": not sent by this node`}) {
			t.Errorf("%s: %q are set aside", queue, got)
		}
	}
	if got := h.queued("peer.0"); !slices.Equal(got, []string{"valid"}) {
		t.Errorf("the queue has %q", got)
	}
	w.send("SEND", "x", "destination", toPeer, "type", "Wrong", "content-type", contentType, "receipt", "3", "if-invalid", "drop")
	w.expectError(`if-invalid "drop": expected set-aside`, "receipt-id", "3")
	h.wantCounts(map[string]uint64{"stored": 1, "invalid": 2, "refused": 1, "answered": 0, "unroutable": 0})
}

// aside returns the bodies of the dead letters of a queue, with their reasons.
func (h *house) aside(queue string) (list []string) {
	h.tb.Helper()
	for m, err := range h.store.List(h.tb.Context(), queue) {
		if errors.Is(err, broker.ErrNoQueue) {
			return nil
		}
		if err != nil {
			h.tb.Fatal(err)
		}
		list = append(list, string(m.Body)+": "+m.Reason)
	}
	return list
}

func (h *house) wantCounts(want map[string]uint64) {
	h.tb.Helper()
	if got := h.door.Counts(); !maps.Equal(got, want) {
		h.tb.Errorf("messages by result: %v, expected %v", got, want)
	}
}

// DISCONNECT is answered when everything before it is. A client that closes its side
// without DISCONNECT gets its receipts as well.
func TestDisconnect(t *testing.T) {
	for _, polite := range []bool{true, false} {
		t.Run(fmt.Sprint("polite=", polite), func(t *testing.T) {
			h := newHouse(t, nil)
			nc := h.dial()
			w := h.wireOn(nc)
			w.send("STOMP", "", "accept-version", "1.1,1.2", "passcode", h.secret)
			w.expect("CONNECTED", "version", "1.2")
			unlock := h.lockStore()
			fmt.Fprintf(nc, "SEND\ndestination:%s\ntype:AccountUpdate\ncontent-type:%s\nreceipt:1\n\na\x00", toPeer, contentType)
			if polite {
				w.send("DISCONNECT", "", "receipt", "bye")
			} else if err := nc.(*net.UnixConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			w.expectNothing(50 * time.Millisecond)
			unlock()
			w.expect("RECEIPT", "receipt-id", "1")
			if polite {
				w.expect("RECEIPT", "receipt-id", "bye")
			}
			w.expectEnd()
		})
	}
}

// A message for which there is no disk space is refused, with an ERROR that says so and
// contains its receipt-id.
func TestSendWithoutRoom(t *testing.T) {
	store, err := embedded.Open(filepath.Join(t.TempDir(), "messages.db"), embedded.Options{MinFree: 1 << 62, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	h := newHouse(t, func(c *Config, _ *bounds) { c.Store = store })
	w := h.wire()
	w.sendTo(toPeer, "r", "1")
	w.expect("ERROR", "receipt-id", "r", "message", "the disk is full: the message was not stored, send it again later")
}

// Until the queues of the peers are bound, which may need space that only consuming frees, messages can be
// consumed. A message that is sent meanwhile waits: it is neither refused nor set aside. If the door closes before, it
// is refused.
func TestSendWaitsForBindings(t *testing.T) {
	bound := make(chan struct{})
	h := newHouse(t, func(c *Config, b *bounds) { c.Bound, b.stopTime = bound, 200*time.Millisecond })
	peer := broker.PeerBinding{PeerID: "peer", Exchange: "to_creditors", BindingKey: "00.00.01.#", Queues: []string{"peer.0"}}
	if err := h.store.Unbind(t.Context(), peer); err != nil {
		t.Fatal(err)
	}
	sender, inTransaction := h.wire(), h.wire()
	sender.sendTo("/exchange/to_creditors/00.00.01.00.00.00.00.01", "sent", "1")
	inTransaction.done("BEGIN", "transaction", "t")
	inTransaction.send("SEND", "2", "destination", "/exchange/to_creditors/00.00.01.00.00.00.00.01", "type", "AccountUpdate",
		"content-type", "application/json", "transaction", "t")
	inTransaction.send("COMMIT", "", "transaction", "t", "receipt", "committed")
	consumer := h.wire()
	consumer.subscribe("0", "client-individual")
	h.publish(1, 1)
	ack, _ := consumer.expect("MESSAGE").Get("ack")
	consumer.done("ACK", "id", ack)

	if err := h.store.Bind(t.Context(), peer); err != nil {
		t.Fatal(err)
	}
	if n := len(h.queued("peer.0")); n > 0 {
		t.Errorf("%d messages were stored before the queues were bound", n)
	}
	close(bound)
	sender.expect("RECEIPT", "receipt-id", "sent")
	inTransaction.expect("RECEIPT", "receipt-id", "committed")
	if n := len(h.queued("peer.0")); n != 2 {
		t.Errorf("%d messages are queued, want 2", n)
	}
	if set := h.aside("to_creditors.unroutable"); len(set) > 0 {
		t.Errorf("set aside: %v", set)
	}

	h.stop()

	h = newHouse(t, func(c *Config, b *bounds) { c.Bound, b.stopTime = make(chan struct{}), 200*time.Millisecond })
	sender = h.wire()
	sender.sendTo("/exchange/to_creditors/00.00.01.00.00.00.00.01", "late", "3")
	consumer = h.wire()
	consumer.subscribe("0", "auto")
	h.eventually("a waiting SEND", func() bool { return strings.Contains(stacks(), "(*session).awaitBound") })
	h.stop()
	sender.expectError("stopping")
	if n := len(h.queued("peer.0")); n > 0 {
		t.Errorf("%d messages are queued, want none", n)
	}
}
