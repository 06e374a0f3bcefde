package local

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"peerlink/broker"
	"peerlink/stomp"
)

// A MESSAGE contains everything that the store holds for the message, with application
// headers as text, and when the receipt of its ACK is received, the message is removed.
func TestMessage(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(1, 1)
	w := h.wire()
	w.send("SUBSCRIBE", "", "id", "sub:1", "destination", "/amq/queue/accounts_in", "ack", "client-individual")
	ack := w.expectMessage("1",
		"subscription", "sub:1",
		"message-id", h.messageIDs()[0],
		"destination", "/exchange/accounts_in/1.0.1",
		"redelivered", "false",
		"type", "PrepareTransfer",
		"content-type", contentType,
		"content-length", "1",
		"persistent", "true",
		"message-type", "PrepareTransfer",
		"debtor-id", "-4294967296",
		"ca-trade", "true",
	)
	unlock := h.lockStore()
	w.send("ACK", "", "id", ack, "receipt", "r")
	w.expectNothing(50 * time.Millisecond)
	unlock()
	w.expect("RECEIPT", "receipt-id", "r")
	if got := h.queued("accounts_in"); len(got) != 0 {
		t.Errorf("after the receipt of the ACK the inbox holds %q", got)
	}
}

// messageIDs returns the message-ids of the messages in the inbox.
func (h *house) messageIDs() []string {
	h.tb.Helper()
	messages, err := h.store.Peek(h.tb.Context(), "accounts_in", 100)
	if err != nil {
		h.tb.Fatal(err)
	}
	var ids []string
	for _, m := range messages {
		ids = append(ids, m.ID)
	}
	return ids
}

// Exactly the acknowledged messages are removed, in each mode. All others are delivered
// to the next subscription, with redelivered:true and the same message-id.
func TestAck(t *testing.T) {
	for _, c := range []struct {
		mode AckMode
		ack  []int // of messages 1 to 5
		left []string
	}{
		{AckIndividual, []int{4, 2}, []string{"1", "3", "5"}},
		{AckIndividual, []int{1, 2, 3}, []string{"4", "5"}},
		{AckIndividual, nil, []string{"1", "2", "3", "4", "5"}},
		{AckClient, []int{3}, []string{"4", "5"}},
		{AckClient, []int{1, 5}, []string{}},
	} {
		t.Run(fmt.Sprint(c.mode, c.ack), func(t *testing.T) {
			h := newHouse(t, nil)
			h.publish(1, 5)
			w := h.wire()
			w.subscribe("0", string(c.mode))
			acks, ids := []string{""}, h.messageIDs()
			for i := 1; i <= 5; i++ {
				acks = append(acks, w.expectMessage(strconv.Itoa(i)))
			}
			for _, i := range c.ack {
				w.done("ACK", "id", acks[i])
			}
			if got := h.queued("accounts_in"); !slices.Equal(got, c.left) {
				t.Errorf("inbox holds %q, expected %q", got, c.left)
			}
			w.conn.Close()

			w = h.wire()
			w.subscribe("0", string(c.mode))
			for _, body := range c.left {
				n, _ := strconv.Atoi(body)
				w.expectMessage(body, "redelivered", "true", "message-id", ids[n-1])
			}
		})
	}
}

// An ACK is valid for one delivery only: neither a second time, nor for a later
// delivery of the message, nor on another connection, nor with ack:auto.
func TestAckOfWhatIsNotHeld(t *testing.T) {
	for _, c := range []struct {
		name string
		ack  func(h *house) (w *wire, ack string)
	}{
		{"twice", func(h *house) (*wire, string) {
			w := h.wire()
			w.subscribe("0", "client-individual")
			ack := w.expectMessage("1")
			w.done("ACK", "id", ack)
			return w, ack
		}},
		{"below a cumulative one", func(h *house) (*wire, string) {
			h.publish(2, 2)
			w := h.wire()
			w.subscribe("0", "client")
			ack := w.expectMessage("1")
			w.done("ACK", "id", w.expectMessage("2"))
			return w, ack
		}},
		{"delivered again", func(h *house) (*wire, string) {
			w := h.wire()
			w.subscribe("0", "client-individual")
			ack := w.expectMessage("1")
			w.done("UNSUBSCRIBE", "id", "0")
			w.subscribe("0", "client-individual")
			w.expectMessage("1", "redelivered", "true")
			return w, ack
		}},
		{"of another connection", func(h *house) (*wire, string) {
			other, w := h.wire(), h.wire()
			other.subscribe("0", "client-individual")
			return w, other.expectMessage("1")
		}},
		{"auto", func(h *house) (*wire, string) {
			w := h.wire()
			w.subscribe("0", "auto")
			if ack := w.expectMessage("1"); ack != "" {
				t.Errorf("a message with ack:auto has the ack header %q", ack)
			}
			return w, "1@0"
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t, nil)
			h.publish(1, 1)
			w, ack := c.ack(h)
			w.send("ACK", "", "id", ack, "receipt", "r")
			w.expectError("that this connection holds", "receipt-id", "r")
		})
	}
}

// No subscription holds more than its prefetch-count, and after each removal one more
// message is delivered.
func TestPrefetch(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(1, 10)
	w := h.wire()
	w.subscribe("0", "client-individual", "prefetch-count", "3")
	acks := []string{w.expectMessage("1"), w.expectMessage("2"), w.expectMessage("3")}
	w.expectNothing(50 * time.Millisecond)
	w.send("ACK", "", "id", acks[1])
	w.expectMessage("4")
	w.expectNothing(50 * time.Millisecond)
	w.send("ACK", "", "id", acks[0])
	w.send("ACK", "", "id", acks[2])
	w.expectMessage("5")
	w.expectMessage("6")
	w.expectNothing(50 * time.Millisecond)
}

// With ack:auto, messages are removed without the client, and at most prefetch-count
// messages are being removed at any time.
func TestAckAuto(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(1, 5)
	unlock := h.lockStore()
	w := h.wire()
	w.subscribe("0", "auto", "prefetch-count", "2")
	w.expectMessage("1")
	w.expectMessage("2")
	w.expectNothing(50 * time.Millisecond)
	unlock()
	for i := 3; i <= 5; i++ {
		w.expectMessage(strconv.Itoa(i))
	}
	w.done("UNSUBSCRIBE", "id", "0") // waits for the removals
	if got := h.queued("accounts_in"); len(got) != 0 {
		t.Errorf("inbox holds %q, expected nothing", got)
	}
}

// Subscriptions compete, on one connection or on several: each message is delivered to
// one of them.
func TestCompete(t *testing.T) {
	h := newHouse(t, nil)
	a, b := h.wire(), h.wire()
	a.subscribe("0", "client-individual", "prefetch-count", "2")
	a.subscribe("1", "client-individual", "prefetch-count", "2")
	b.subscribe("0", "client-individual", "prefetch-count", "6")
	h.publish(1, 10)
	seen := make(map[string]bool)
	holds := make(map[string]int)
	count := func(name string, w *wire, n int) {
		for range n {
			f := w.expect("MESSAGE")
			id, _ := f.Get("subscription")
			seen[string(f.Body)] = true
			holds[name+id]++
		}
	}
	count("a", a, 4)
	count("b", b, 6)
	if len(seen) != 10 || holds["a0"] != 2 || holds["a1"] != 2 || holds["b0"] != 6 {
		t.Errorf("%d different messages were given out, %v", len(seen), holds)
	}
}

// Messages that a client holds are delivered to another client when the subscription or
// the connection ends, in whatever way.
func TestRedelivery(t *testing.T) {
	for name, end := range map[string]func(w *wire){
		"UNSUBSCRIBE":     func(w *wire) { w.done("UNSUBSCRIBE", "id", "0") },
		"DISCONNECT":      func(w *wire) { w.done("DISCONNECT") },
		"lost connection": func(w *wire) { w.conn.Close() },
		"error":           func(w *wire) { w.send("HELLO", ""); w.expectError("HELLO") },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, nil)
			h.publish(1, 3)
			first, second := h.wire(), h.wire()
			first.subscribe("0", "client")
			for i := 1; i <= 3; i++ {
				first.expectMessage(strconv.Itoa(i), "redelivered", "false")
			}
			second.subscribe("0", "client")
			second.expectNothing(20 * time.Millisecond)
			end(first)
			for i := 1; i <= 3; i++ {
				second.expectMessage(strconv.Itoa(i), "redelivered", "true")
			}
		})
	}
}

// A message returned by NACK is redelivered after a pause, while others are delivered:
// it cannot be redelivered at full speed, and counts against the prefetch-count
// meanwhile.
func TestNack(t *testing.T) {
	const pause = 150 * time.Millisecond
	h := newHouse(t, func(_ *Config, b *bounds) { b.nackPause = pause })
	h.publish(1, 3)
	w := h.wire()
	w.subscribe("0", "client-individual", "prefetch-count", "2")
	first, second := w.expectMessage("1"), w.expectMessage("2")
	begin := time.Now()
	w.done("NACK", "id", first)
	w.send("ACK", "", "id", second)
	w.expectMessage("3", "redelivered", "false")
	other := h.wire()
	other.subscribe("0", "client-individual") // has room for the message from the beginning
	var f *stomp.Frame
	select {
	case f = <-w.frames:
	case f = <-other.frames:
	case <-time.After(patience):
		t.Fatal("the message does not come back")
	}
	if redelivered, _ := f.Get("redelivered"); string(f.Body) != "1" || redelivered != "true" {
		t.Errorf("got %v %q, expected message 1 again", f.Headers, f.Body)
	}
	if took := time.Since(begin); took < pause {
		t.Errorf("the message was given out again after %v, expected at least %v", took, pause)
	}
}

// With requeue:false a message is removed, and with ack:client all messages before it.
func TestNackWithoutRequeue(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(1, 3)
	w := h.wire()
	w.subscribe("0", "client")
	w.expectMessage("1")
	ack := w.expectMessage("2")
	w.expectMessage("3")
	w.done("NACK", "id", ack, "requeue", "false")
	if got := h.queued("accounts_in"); !slices.Equal(got, []string{"3"}) {
		t.Errorf("inbox holds %q, expected only 3", got)
	}
}

// The end of a subscription returns at once the messages that wait after a NACK.
func TestNackThenUnsubscribe(t *testing.T) {
	h := newHouse(t, func(_ *Config, b *bounds) { b.nackPause = time.Hour })
	h.publish(1, 1)
	w := h.wire()
	w.subscribe("0", "client")
	w.done("NACK", "id", w.expectMessage("1"))
	w.done("UNSUBSCRIBE", "id", "0")
	w.subscribe("0", "client")
	w.expectMessage("1", "redelivered", "true")
}

// Copies remove nothing from the inbox, begin with the subscription, and do not compete
// with other subscriptions.
func TestCopies(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(1, 1)
	a, b, c := h.wire(), h.wire(), h.wire()
	for _, w := range []*wire{a, b} {
		w.done("SUBSCRIBE", "id", "0", "destination", "/exchange/accounts_in/#")
	}
	c.subscribe("0", "client")
	c.expectMessage("1")
	h.publish(2, 3)
	for _, w := range []*wire{a, b} {
		w.expectMessage("2", "destination", "/exchange/accounts_in/1.0.1", "redelivered", "false", "debtor-id", "-4294967296")
		if ack := w.expectMessage("3"); ack != "" {
			t.Errorf("a copy has the ack header %q", ack)
		}
	}
	c.expectMessage("2")
	if got := h.queued("accounts_in"); len(got) != 3 {
		t.Errorf("inbox holds %q, expected all three messages", got)
	}
}

// A slow reader of copies delays no other client. Missed copies are counted: the copies
// and the counts add up to all messages.
func TestCopiesMissed(t *testing.T) {
	h := newHouse(t, nil)
	w := h.wire()
	w.done("SUBSCRIBE", "id", "0", "destination", "/exchange/accounts_in/#")
	const n = 2000
	body := bytes.Repeat([]byte("x"), 8000)
	durable := make(chan error, 1)
	p, err := h.store.Publish(t.Context(), func(got uint64, err error) {
		if got == n || err != nil {
			durable <- err
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := p.Publish(t.Context(), incoming(string(body))); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-durable; err != nil {
		t.Fatal(err)
	}
	// Copies can be missed only if another client removes the messages from the inbox.
	c := h.client()
	sub, err := c.Subscribe(t.Context(), "/queue/accounts_in", 1000, AckAuto)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		if _, err := sub.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Disconnect(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.publish(1, 1)

	var copies, missed int
	for last := false; !last; copies++ {
		f := w.expect("MESSAGE")
		last = string(f.Body) == "1"
		if text, ok := f.Get("missed"); ok {
			m, err := strconv.Atoi(text)
			if err != nil || m < 1 {
				t.Fatalf("missed:%s", text)
			}
			missed += m
		}
	}
	if copies+missed != n+1 || missed == 0 {
		t.Errorf("%d copies and %d missed, expected %d together, and some missed", copies, missed, n+1)
	}
}

// A message that does not fit into a frame does not block others, and is not removed.
func TestUnsendable(t *testing.T) {
	for _, mode := range []AckMode{AckAuto, AckClient} {
		t.Run(string(mode), func(t *testing.T) {
			h := newHouse(t, nil)
			watching := h.wire()
			watching.done("SUBSCRIBE", "id", "0", "destination", "/exchange/accounts_in/#")
			durable := make(chan error, 1)
			p, err := h.store.Publish(t.Context(), func(_ uint64, err error) { durable <- err })
			if err != nil {
				t.Fatal(err)
			}
			m := incoming("monster")
			m.Headers = []broker.Header{{Name: "coordinator-type", Value: strings.Repeat("x", maxHeaderValue+1)}}
			if err := p.Publish(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			if err := <-durable; err != nil {
				t.Fatal(err)
			}
			h.publish(1, 1)
			watching.expectMessage("1")
			w := h.wire()
			w.subscribe("0", string(mode), "prefetch-count", "1")
			if ack := w.expectMessage("1"); ack != "" {
				w.done("ACK", "id", ack)
			}
			w.done("UNSUBSCRIBE", "id", "0")
			if got := h.queued("accounts_in"); !slices.Equal(got, []string{"monster"}) {
				t.Errorf("inbox holds %q, expected only the messages that could not be delivered", got)
			}
		})
	}
}
