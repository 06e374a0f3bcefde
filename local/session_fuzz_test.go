package local

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// Whatever frames a client sends after CONNECT, with any version of STOMP, the door answers and ends
// its connection, and goes on serving others: what the client did not remove is delivered to
// them.
func FuzzSession(f *testing.F) {
	send := "SEND\ndestination:" + toPeer + "\ntype:AccountUpdate\ncontent-type:application/json\nreceipt:1\n"
	subscribe := "SUBSCRIBE\nid:0\ndestination:/queue/accounts_in\nack:client\n\n\x00"
	begin := "BEGIN\ntransaction:t\n\n\x00"
	for _, frames := range []string{
		send + "\n{}\x00DISCONNECT\nreceipt:2\n\n\x00",
		send + "if-invalid:set-aside\n\n{}\x00",
		subscribe + "ACK\nid:1@0\n\n\x00NACK\nid:1@0\n\n\x00",
		subscribe + begin + "ACK\nid:1@0\ntransaction:t\n\n\x00" + send + "transaction:t\n\n{}\x00ABORT\ntransaction:t\n\n\x00ACK\nid:1@0\n\n\x00",
		subscribe + begin + "NACK\nid:1@0\ntransaction:t\n\n\x00COMMIT\ntransaction:t\nreceipt:c\n\n\x00",
		subscribe + begin + "ACK\nid:1@0\ntransaction:t\n\n\x00UNSUBSCRIBE\nid:0\n\n\x00ABORT\ntransaction:t\n\n\x00",
		"SUBSCRIBE\ndestination:/exchange/accounts_in/#\n\n\x00" + begin + "ACK\nid:1@/exchange/accounts_in/#\ntransaction:t\n\n\x00",
		"SUBSCRIBE\nid:0\ndestination:/queue/accounts_in\nprefetch-count:0\n\n\x00UNSUBSCRIBE\nid:0\n\n\x00",
	} {
		for version := range byte(3) {
			f.Add(version, []byte(frames))
		}
	}
	h := newHouse(f, nil)
	f.Fuzz(func(t *testing.T, version byte, frames []byte) {
		h.tb = t
		if len(h.queued("accounts_in")) == 0 {
			h.publish(1, 1)
		}
		nc := h.dial()
		nc.SetDeadline(time.Now().Add(patience))
		accept := []string{"", "accept-version:1.1\n", "accept-version:1.2\n"}[version%3]
		fmt.Fprintf(nc, "CONNECT\n%spasscode:%s\n\n\x00", accept, h.secret)
		go func() {
			nc.Write(frames)
			nc.(*net.UnixConn).CloseWrite()
		}()
		answer, err := io.ReadAll(nc)
		// A client whose stream ends within a frame counts as gone, and may get no answer.
		if len(answer) > 0 && !strings.HasPrefix(string(answer), "CONNECTED\n") || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("answer %q, %v", answer, err)
		}
		if len(h.queued("accounts_in")) == 0 {
			return
		}
		w := h.wire()
		w.subscribe("0", "client-individual", "prefetch-count", "1") // the client may have sent messages that are answered in the inbox
		w.expect("MESSAGE")
		w.done("DISCONNECT")
	})
}
