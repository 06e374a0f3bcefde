package local

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"peerlink/broker/embedded"
	"peerlink/stomp"
)

// sendIn sends a message in a transaction.
func (w *wire) sendIn(transaction, body string, nameValue ...string) {
	w.tb.Helper()
	w.send("SEND", body, append(nameValue, "destination", toPeer, "type", "AccountUpdate", "content-type", contentType, "transaction", transaction)...)
}

// Nothing of a transaction is done before its COMMIT, and all of it when the receipt of the
// COMMIT comes. Transactions of a connection do not disturb each other, nor what is sent outside.
func TestTransaction(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(1, 3)
	w := h.wire()
	ids := h.messageIDs()
	w.subscribe("0", "client-individual")
	acks := []string{w.expectMessage("1"), w.expectMessage("2"), w.expectMessage("3")}
	w.done("BEGIN", "transaction", "a")
	w.done("BEGIN", "transaction", "b")
	w.sendIn("a", "a1", "receipt", "r")
	w.expect("RECEIPT", "receipt-id", "r")
	w.sendIn("b", "b1")
	w.sendIn("a", "a2")
	w.done("ACK", "id", acks[0], "transaction", "a")
	w.done("ACK", "message-id", ids[1], "transaction", "a")
	w.done("NACK", "id", acks[2], "transaction", "a", "requeue", "false")
	w.sendTo(toPeer, "now", "now")
	w.expect("RECEIPT", "receipt-id", "now")
	want := func(sent, inbox []string) {
		t.Helper()
		if got := h.queued("peer.0"); !slices.Equal(got, sent) {
			t.Errorf("sent: %q, expected %q", got, sent)
		}
		if got := h.queued("accounts_in"); !slices.Equal(got, inbox) {
			t.Errorf("inbox: %q, expected %q", got, inbox)
		}
	}
	want([]string{"now"}, []string{"1", "2", "3"})
	unlock := h.lockStore()
	w.send("COMMIT", "", "transaction", "a", "receipt", "committed")
	w.expectNothing(50 * time.Millisecond)
	unlock()
	w.expect("RECEIPT", "receipt-id", "committed")
	want([]string{"now", "a1", "a2"}, []string{})
	w.done("COMMIT", "transaction", "b")
	want([]string{"now", "a1", "a2", "b1"}, []string{})
	h.wantCounts(map[string]uint64{"stored": 4, "refused": 0, "invalid": 0, "unroutable": 0, "answered": 0})
}

// After ABORT nothing is done, and the client holds again what it has acknowledged in the
// transaction: it can acknowledge it, in its old order.
func TestAbort(t *testing.T) {
	for _, mode := range []AckMode{AckClient, AckIndividual} {
		t.Run(string(mode), func(t *testing.T) {
			h := newHouse(t, nil)
			h.publish(1, 3)
			w := h.wire()
			w.subscribe("0", string(mode), "prefetch-count", "3")
			acks := []string{w.expectMessage("1"), w.expectMessage("2"), w.expectMessage("3")}
			w.done("BEGIN", "transaction", "t")
			w.sendIn("t", "x")
			w.done("ACK", "id", acks[1], "transaction", "t")
			h.publish(4, 4)
			w.expectNothing(20 * time.Millisecond) // all count against the prefetch-count
			w.done("ABORT", "transaction", "t")
			w.send("ACK", "", "id", acks[1], "receipt", "r")
			if f := w.next(); f.Command == "RECEIPT" { // or the message comes first
				w.expectMessage("4")
			}
			left := map[AckMode][]string{AckClient: {"3", "4"}, AckIndividual: {"1", "3", "4"}}[mode]
			h.eventually("the acknowledged messages are removed, and no others", func() bool { return slices.Equal(h.queued("accounts_in"), left) })
			if got := h.queued("peer.0"); len(got) > 0 {
				t.Errorf("an aborted transaction has sent %q", got)
			}
		})
	}
}

// What is in a transaction without COMMIT when the connection ends is not done: its messages are
// not sent, and those that it acknowledges are delivered again.
func TestTransactionWithoutCommit(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(1, 1)
	w := h.wire()
	w.subscribe("0", "client-individual")
	w.expectMessage("1")
	w.done("BEGIN", "transaction", "t")
	w.sendIn("t", "x")
	w.done("ACK", "message-id", h.messageIDs()[0], "transaction", "t")
	w.done("DISCONNECT")
	w.expectEnd()
	w = h.wire()
	w.subscribe("0", "client-individual")
	w.expectMessage("1", "redelivered", "true")
	if got := h.queued("peer.0"); len(got) > 0 {
		t.Errorf("sent: %q", got)
	}
}

// A NACK in a transaction returns the message after the COMMIT.
func TestNackInTransaction(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(1, 1)
	w := h.wire()
	w.subscribe("0", "client-individual", "prefetch-count", "1")
	ack := w.expectMessage("1")
	w.done("BEGIN", "transaction", "t")
	w.done("NACK", "id", ack, "transaction", "t")
	w.expectNothing(50 * time.Millisecond)
	w.send("COMMIT", "", "transaction", "t")
	w.done("ACK", "id", w.expectMessage("1", "redelivered", "true"))
}

// A transaction that cannot be done is answered with an ERROR that has the receipt-id, and nothing
// of it is done.
func TestTransactionRefused(t *testing.T) {
	many := strings.Repeat("x", 60_000)
	for _, c := range []struct {
		name string
		do   func(h *house, w *wire)
		like string
	}{
		{"unknown COMMIT", func(_ *house, w *wire) { w.send("COMMIT", "", "transaction", "other", "receipt", "r") }, `has no transaction "other"`},
		{"unknown ABORT", func(_ *house, w *wire) { w.send("ABORT", "", "transaction", "other", "receipt", "r") }, `has no transaction "other"`},
		{"unknown SEND", func(_ *house, w *wire) { w.sendIn("other", "x", "receipt", "r") }, `has no transaction "other"`},
		{"COMMIT twice", func(_ *house, w *wire) {
			w.send("ABORT", "", "transaction", "t")
			w.send("COMMIT", "", "transaction", "t", "receipt", "r")
		}, `has no transaction "t"`},
		{"BEGIN twice", func(_ *house, w *wire) { w.send("BEGIN", "", "transaction", "t", "receipt", "r") }, "a transaction of this connection already"},
		{"BEGIN without name", func(_ *house, w *wire) { w.send("BEGIN", "", "receipt", "r") }, "BEGIN without transaction header"},
		{"SUBSCRIBE", func(_ *house, w *wire) {
			w.send("SUBSCRIBE", "", "id", "1", "destination", "/queue/accounts_in", "transaction", "t", "receipt", "r")
		}, "only SEND, ACK and NACK can be"},
		{"invalid message", func(_ *house, w *wire) {
			w.send("SEND", "", "destination", toPeer, "type", "Wrong", "content-type", contentType, "transaction", "t", "receipt", "r")
		}, "not sent by this node"},
		{"not held", func(_ *house, w *wire) { w.send("ACK", "", "id", "9@0", "transaction", "t", "receipt", "r") }, "that this connection holds"},
		{"acknowledged twice", func(_ *house, w *wire) {
			w.send("ACK", "", "id", "1@0", "transaction", "t")
			w.send("ACK", "", "id", "1@0", "receipt", "r")
		}, "that this connection holds"},
		{"ended subscription", func(h *house, w *wire) {
			w.send("ACK", "", "id", "1@0", "transaction", "t")
			w.done("UNSUBSCRIBE", "id", "0")
			w.send("COMMIT", "", "transaction", "t", "receipt", "r")
		}, `the subscription "0", whose messages it acknowledges, has ended`},
		{"too many", func(_ *house, w *wire) {
			for i := range 16 {
				w.send("BEGIN", "", "transaction", fmt.Sprint(i), "receipt", "r")
				if i < 15 {
					w.expect("RECEIPT")
				}
			}
		}, "16 open transactions, which is the limit"},
		{"too many messages", func(_ *house, w *wire) {
			for range 999 { // and one before
				w.sendIn("t", "x")
			}
			w.sendIn("t", "x", "receipt", "r")
		}, "may have at most 1000 messages, and 4194304 bytes"},
		{"too many bytes", func(_ *house, w *wire) {
			w.done("BEGIN", "transaction", "u")
			for i := range 68 {
				w.sendIn([]string{"t", "u"}[i%2], many)
			}
			w.sendIn("t", many, "receipt", "r")
			w.sendIn("t", many, "receipt", "r")
		}, "may have at most 1000 messages, and 4194304 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t, nil)
			h.publish(1, 1)
			w := h.wire()
			w.subscribe("0", "client-individual")
			w.expectMessage("1")
			w.done("BEGIN", "transaction", "t")
			w.sendIn("t", "before")
			c.do(h, w)
			f := w.next()
			for f.Command == "RECEIPT" {
				f = w.next()
			}
			receipt, _ := f.Get("receipt-id")
			if text, _ := f.Get("message"); f.Command != "ERROR" || receipt != "r" || !strings.Contains(text, c.like) {
				t.Errorf("got %s %v, expected an ERROR about r like %q", f.Command, f.Headers, c.like)
			}
			if got := h.queued("peer.0"); len(got) > 0 {
				t.Errorf("sent: %q", got)
			}
			if got := h.queued("accounts_in"); !slices.Equal(got, []string{"1"}) {
				t.Errorf("the inbox has %q", got)
			}
		})
	}
}

// What ABORT has dropped no longer counts against the bounds.
func TestTransactionBoundsAreFreed(t *testing.T) {
	h := newHouse(t, nil)
	w := h.wire()
	for range 3 {
		w.send("BEGIN", "", "transaction", "t")
		for range 900 {
			w.sendIn("t", "x")
		}
		w.done("ABORT", "transaction", "t")
	}
}

// A transaction for which there is no disk space is refused as a whole.
func TestCommitWithoutRoom(t *testing.T) {
	store, err := embedded.Open(filepath.Join(t.TempDir(), "messages.db"), embedded.Options{MinFree: 1 << 62, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	h := newHouse(t, func(c *Config, _ *bounds) { c.Store = store })
	w := h.wire()
	w.send("BEGIN", "", "transaction", "t")
	w.sendIn("t", "1")
	w.send("COMMIT", "", "transaction", "t", "receipt", "r")
	w.expect("ERROR", "receipt-id", "r", "message", "the disk is full: nothing of the transaction was done, send all of it again later")
}

// The messages that a transaction acknowledges are bounded by the prefetch-counts of the open
// subscriptions: those of a subscription that has ended are dropped, and COMMIT is refused.
func TestTransactionForgetsEndedSubscriptions(t *testing.T) {
	s := newSession(&Door{bounds: defaultBounds()}, nil, quiet())
	handle := func(command string, nameValue ...string) error {
		return s.handle(stomp.NewFrame(command, nameValue...), &operation{session: s})
	}
	accepted := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	accepted(handle("BEGIN", "transaction", "t"))
	for range 10 {
		const messages = 100
		done := make(chan struct{})
		close(done)
		sub := &subscription{subscribeOptions: subscribeOptions{key: subscriptionKey{id: "0"}, ack: AckIndividual}, unacked: holding(messages), cancel: func() {}, done: done}
		s.subscriptions[sub.key] = sub
		for tag := range messages {
			accepted(handle("ACK", "transaction", "t", "id", ackID(uint64(tag+1), "0")))
		}
		accepted(handle("UNSUBSCRIBE", "id", "0"))
	}
	if kept := len(s.transactions.open["t"].acks); kept > 0 {
		t.Errorf("the transaction has acknowledgements of %d subscriptions that have ended", kept)
	}
	if err := handle("COMMIT", "transaction", "t"); err == nil || !strings.Contains(err.Error(), `the subscription "0", whose messages it acknowledges, has ended`) {
		t.Errorf("COMMIT: %v", err)
	}
}
