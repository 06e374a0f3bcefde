package local

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// What the door keeps of a frame (messages that are being stored or are in a transaction, names of
// subscriptions and transactions, acknowledgements, receipt IDs) does not keep the frame's other
// headers in memory.
func TestKeptPartsAreSmall(t *testing.T) {
	const messages = 400
	var padding []string
	for i := range 7 {
		padding = append(padding, fmt.Sprint("x", i), strings.Repeat("y", 4000))
	}
	h := newHouse(t, nil)
	h.publish(1, messages)
	w := h.wire()
	w.subscribe("held", "client-individual", "prefetch-count", fmt.Sprint(messages))
	acks := make([]string, messages)
	for i := range acks {
		acks[i] = w.expectMessage(fmt.Sprint(i + 1))
	}
	padded := func(command string, nameValue ...string) {
		t.Helper()
		w.send(command, "", append(nameValue, padding...)...)
	}
	send := []string{"destination", toPeer, "type", "AccountUpdate", "content-type", contentType}
	grown := func(what string, do func()) {
		t.Helper()
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		do()
		runtime.GC()
		runtime.ReadMemStats(&after)
		// The headers would take 11 MB.
		if bytes := int64(after.HeapAlloc) - int64(before.HeapAlloc); bytes > 3<<20 {
			t.Errorf("%s: %d frames take %d bytes", what, messages, bytes)
		}
	}
	padded("BEGIN", "transaction", "t")
	grown("SEND in a transaction", func() {
		for range messages {
			padded("SEND", append(send, "transaction", "t")...)
		}
		w.done("BEGIN", "transaction", "sent")
	})
	grown("ACK in a transaction", func() {
		for _, ack := range acks {
			padded("ACK", "id", ack, "transaction", "t")
		}
		w.done("BEGIN", "transaction", "acknowledged")
	})
	unlock := h.lockStore()
	defer unlock()
	grown("SEND", func() {
		for i := range messages {
			padded("SEND", append(send, "receipt", fmt.Sprint("r", i))...)
		}
		w.done("BEGIN", "transaction", "sent again")
	})
	w.expectNothing(time.Millisecond) // the messages are still being stored
}

// The names of subscriptions and transactions do not keep the other headers of their frames in memory.
func TestKeptNamesAreSmall(t *testing.T) {
	h := newHouse(t, func(_ *Config, b *bounds) { b.subscriptions, b.transactions = 300, 300 })
	w := h.wire()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	padding := strings.Repeat("y", 4000)
	for i := range 300 {
		headers := []string{"id", fmt.Sprint(i), "destination", "/queue/accounts_in", "prefetch-count", "1", "transaction", fmt.Sprint(i)}
		for k := range 7 {
			headers = append(headers, fmt.Sprint("x", k), padding)
		}
		w.send("BEGIN", "", headers...)
		w.send("SUBSCRIBE", "", append(headers[:6:6], headers[8:]...)...)
	}
	w.send("SEND", "{}", "destination", toPeer, "type", "AccountUpdate", "content-type", contentType, "transaction", "0", "receipt", "last")
	w.expect("RECEIPT", "receipt-id", "last")
	runtime.GC()
	runtime.ReadMemStats(&after)
	// The headers would take 17 MB, and a subscription takes some kilobytes.
	if bytes := int64(after.HeapAlloc) - int64(before.HeapAlloc); bytes > 6<<20 {
		t.Errorf("300 subscriptions and transactions take %d bytes", bytes)
	}
}
