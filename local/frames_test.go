package local

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"peerlink/stomp"
)

// The latest version that the client accepts is used, and 1.0 with one that sends no
// accept-version. In version 1.0, colons and backslashes stand for themselves, in both
// directions; in 1.1 they are escaped.
func TestVersions(t *testing.T) {
	for _, c := range []struct{ accept, version, receipt string }{
		{"", "1.0", `a:b\c\n`},
		{"accept-version:1.0\n", "1.0", `a:b\c\n`},
		{"accept-version:1.0,1.1\n", "1.1", `a\cb\\c\n`},
		{"accept-version:1.1,1.0,1.2\n", "1.2", `a\cb\\c\n`},
	} {
		t.Run(c.accept, func(t *testing.T) {
			h := newHouse(t, nil)
			nc := h.dial()
			nc.SetDeadline(time.Now().Add(patience))
			fmt.Fprintf(nc, "CONNECT\n%spasscode:%s\n\n\x00", c.accept, h.secret)
			fmt.Fprintf(nc, "SEND\ndestination:%s\ntype:AccountUpdate\ncontent-type:application/json\nreceipt:%s\n\n{}\x00", toPeer, c.receipt)
			fmt.Fprintf(nc, "SUBSCRIBE\ndestination:/queue/other\nreceipt:%s\n\n\x00", c.receipt)
			all, err := io.ReadAll(nc)
			if err != nil {
				t.Fatal(err)
			}
			frames := strings.Split(string(all), "\x00")
			if len(frames) != 4 || !strings.Contains(frames[0], "\nversion:"+c.version+"\n") || frames[1] != "RECEIPT\nreceipt-id:"+c.receipt+"\n\n" ||
				!strings.HasPrefix(frames[2], "ERROR\n") || !strings.Contains(frames[2], "\nreceipt-id:"+c.receipt+"\n") {
				t.Errorf("got %q", frames)
			}
			if has := strings.Contains(frames[0], "\nsession:"); has != (c.version == "1.0") {
				t.Errorf("CONNECTED of %s: %q", c.version, frames[0])
			}
		})
	}
	h := newHouse(t, nil)
	w := h.wireOn(h.dial())
	w.send("CONNECT", "", "accept-version", "1.3", "passcode", h.secret)
	w.expectError("accept-version does not have 1.2,1.1,1.0", "version", "1.2,1.1,1.0")
}

// A violation of STOMP in a frame with a receipt header is answered with an ERROR that contains the
// receipt-id, if the header was received before.
func TestViolationHasReceiptID(t *testing.T) {
	for like, rest := range map[string]string{
		"undefined escape":       "a:\\t\n\n\x00",
		"has no colon":           "a\n\n\x00",
		"is larger than 65536":   "content-length:65537\n\n",
		"has no NUL":             "content-length:1\n\nxyz\x00",
		"more than 100 headers":  strings.Repeat("a:b\n", 100) + "\n\x00",
		"take more than 32768":   strings.Repeat("a:"+strings.Repeat("b", 4000)+"\n", 9) + "\n\x00",
		"longer than 4096 bytes": "a:" + strings.Repeat("b", 4097) + "\n\n\x00",
	} {
		t.Run(like, func(t *testing.T) {
			h := newHouse(t, nil)
			nc := h.dial()
			w := h.wireOn(nc)
			w.send("CONNECT", "", "accept-version", "1.2", "passcode", h.secret)
			w.expect("CONNECTED")
			fmt.Fprintf(nc, "SEND\nreceipt:the\\cone\n%s", rest)
			w.expectError(like, "receipt-id", "the:one")
		})
	}
	h := newHouse(t, nil)
	nc := h.dial()
	w := h.wireOn(nc)
	w.send("CONNECT", "", "accept-version", "1.2", "passcode", h.secret)
	w.expect("CONNECTED")
	w.sendTo(toPeer, "before", "{}")
	w.expect("RECEIPT")
	fmt.Fprint(nc, "no command\n\n\x00")
	f := w.expect("ERROR")
	if receipt, ok := f.Get("receipt-id"); ok {
		t.Errorf("an ERROR about a frame without a receipt header has the receipt-id %q", receipt)
	}
}

// Headers that applications and their libraries add, up to 60 and of 2,000 bytes, are accepted, and a
// receipt and the id of a subscription of this size are sent back whole, in an ERROR too.
func TestLargeHeaders(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(1, 1)
	w := h.wire()
	long := strings.Repeat("x:", 500) + strings.Repeat("y", 1000)
	more := []string{"receipt", long}
	for i := range 55 {
		more = append(more, fmt.Sprint("header-", i), strings.Repeat("z", 400))
	}
	w.send("SEND", "{}", append([]string{"destination", toPeer, "type", "AccountUpdate", "content-type", contentType}, more...)...)
	w.expect("RECEIPT", "receipt-id", long)
	w.send("SUBSCRIBE", "", "id", long, "destination", "/queue/accounts_in", "ack", "client-individual")
	ack := w.expectMessage("1", "subscription", long)
	w.done("ACK", "id", ack)
	w.send("UNSUBSCRIBE", "", "id", "none", "receipt", long)
	w.expectError("no such subscription", "receipt-id", long)
}

// A subscription without id, as in STOMP 1.0, is named by its destination, and its messages are
// acknowledged by message-id, or by the ack header.
func TestSubscribeWithoutID(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(1, 3)
	w := h.wire()
	ids := h.messageIDs()
	w.send("SUBSCRIBE", "", "destination", "/queue/accounts_in", "ack", "client-individual", "prefetch-count", "2")
	w.expectMessage("1", "subscription", "/queue/accounts_in", "message-id", ids[0])
	ack := w.expectMessage("2", "message-id", ids[1])
	w.send("ACK", "", "message-id", ids[0])
	w.expectMessage("3", "message-id", ids[2])
	w.done("ACK", "id", ack)
	w.done("UNSUBSCRIBE", "destination", "/queue/accounts_in")
	if got := h.queued("accounts_in"); len(got) != 1 || got[0] != "3" {
		t.Errorf("the inbox has %q, expected 3", got)
	}
	w.done("SUBSCRIBE", "destination", "/exchange/accounts_in/#")
	w.send("SUBSCRIBE", "", "destination", "/exchange/accounts_in/#", "receipt", "again")
	w.expectError("which another subscription of this connection has", "receipt-id", "again")
}

// With ack:client, an ACK by message-id acknowledges the messages before it too, of the named
// subscription.
func TestAckByMessageID(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(1, 3)
	w := h.wire()
	ids := h.messageIDs()
	w.subscribe("0", "client")
	for _, body := range []string{"1", "2", "3"} {
		w.expectMessage(body)
	}
	w.done("ACK", "message-id", ids[1], "subscription", "0")
	if got := h.queued("accounts_in"); len(got) != 1 || got[0] != "3" {
		t.Errorf("the inbox has %q, expected 3", got)
	}
	w.send("ACK", "", "message-id", ids[2], "subscription", "other", "receipt", "r")
	w.expectError("that this connection holds", "receipt-id", "r")
}

// With prefetch-count 0 a subscription gets as many messages as the connection may have, and others
// still fit in; 65535 is allowed.
func TestPrefetchAll(t *testing.T) {
	h := newHouse(t, func(_ *Config, b *bounds) { b.prefetch = maxPrefetch + 151 })
	h.publish(1, 300)
	w := h.wire()
	w.subscribe("0", "client-individual", "prefetch-count", "0")
	for i := range 300 {
		w.expectMessage(fmt.Sprint(i + 1))
	}
	w.done("SUBSCRIBE", "id", "1", "destination", "/queue/accounts_in", "prefetch-count", "150")
	w.done("SUBSCRIBE", "id", "2", "destination", "/queue/accounts_in", "prefetch-count", "0") // the last one
	w.done("UNSUBSCRIBE", "id", "1")
	w.done("UNSUBSCRIBE", "id", "2")
	w.send("UNSUBSCRIBE", "", "id", "0")
	w.send("SUBSCRIBE", "", "id", "0", "destination", "/queue/accounts_in", "ack", "client", "prefetch-count", "65535", "receipt", "65535")
	w.expect("RECEIPT", "receipt-id", "65535")
}

// The content type may have parameters; the peer gets it without them.
func TestContentTypeParameters(t *testing.T) {
	h := newHouse(t, nil)
	w := h.wire()
	for _, s := range []string{"application/json;charset=utf-8", "Application/JSON; charset=\"UTF-8\"", "application/json; profile=x"} {
		w.send("SEND", "{}", "destination", toPeer, "type", "AccountUpdate", "content-type", s, "receipt", s)
		w.expect("RECEIPT", "receipt-id", s)
	}
	messages, err := h.store.Peek(t.Context(), "peer.0", 10)
	if err != nil || len(messages) != 3 {
		t.Fatal(messages, err)
	}
	for _, m := range messages {
		if m.ContentType != contentType {
			t.Errorf("the content type is stored as %q", m.ContentType)
		}
	}
}

// The door offers and requests the heart-beats that the client requests and offers, down to one in
// a second, and sends its own.
func TestHeartBeat(t *testing.T) {
	h := newHouse(t, nil)
	for theirs, ours := range map[string]string{"": "0,0", "0,0": "0,0", "10000,0": "0,10000", "5000,20000": "20000,5000", "50,1": "1000,1000"} {
		nc := h.dial()
		fmt.Fprintf(nc, "CONNECT\naccept-version:1.2\nheart-beat:%s\npasscode:%s\n\n\x00", theirs, h.secret)
		f, err := stomp.NewReader(nc, frameLimits()).ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if beat, _ := f.Get("heart-beat"); beat != ours {
			t.Errorf("to %q the door says %q, expected %q", theirs, beat, ours)
		}
		nc.SetReadDeadline(time.Now().Add(patience))
		if theirs != "50,1" {
			continue
		}
		if _, err := io.ReadFull(nc, make([]byte, 1)); err != nil {
			t.Errorf("no heart-beat: %v", err)
		}
	}
}
