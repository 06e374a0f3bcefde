package link_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"peerlink/link/linktest"
	"peerlink/node/nodetest"
	"peerlink/stomp"
)

// refuser is a server that accepts messages, or answers them with an ERROR that
// identifies none, unless its text has $RECEIPT in a further header.
type refuser struct {
	connects atomic.Int32
	hasty    atomic.Bool                                        // it sends an ERROR at once, also before a message
	refuse   atomic.Pointer[func(body []byte) (message string)] // "" to accept it
}

func (r *refuser) set(refuse func(body []byte) string) { r.refuse.Store(&refuse) }

func (r *refuser) serve(conn *tls.Conn) {
	frames := stomp.NewReader(conn, stomp.DefaultLimits())
	if _, err := frames.ReadFrame(); err != nil {
		return
	}
	r.connects.Add(1)
	fmt.Fprint(conn, "CONNECTED\nversion:1.2\n\n\x00")
	if r.hasty.Load() {
		fmt.Fprint(conn, "ERROR\nmessage:no more sessions\n\n\x00")
		_ = conn.CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
		return
	}
	for {
		f, err := frames.ReadFrame()
		if err != nil {
			return
		}
		receipt, _ := f.Get("receipt")
		if message := (*r.refuse.Load())(f.Body); f.Command == "SEND" && message != "" {
			time.Sleep(5 * time.Millisecond) // others are in flight by then
			fmt.Fprintf(conn, "ERROR\nmessage:%s\n\n\x00", strings.ReplaceAll(message, "$RECEIPT", receipt))
			_ = conn.CloseWrite()
			for err == nil { // so that the ERROR is not lost
				_, err = frames.ReadFrame()
			}
			return
		}
		fmt.Fprintf(conn, "RECEIPT\nreceipt-id:%s\n\n\x00", receipt)
	}
}

// A message that the peer refuses with an ERROR that does not identify it is found and
// becomes a dead letter, and the others are delivered. If a peer answers all messages
// in this way, at most one message becomes a dead letter, and none if the peer says that the
// fault is its own, or that it does not want the connection. The rest is delivered when the peer
// has recovered.
func TestRefusalsWithoutName(t *testing.T) {
	t.Parallel()
	takeAll := func([]byte) string { return "" }
	for _, tt := range []struct {
		name   string
		refuse func(body []byte) string
		aside  int
		ends   bool // all messages are delivered or dead letters, without recovery of the peer
	}{
		{"the first", func(b []byte) string { return pick(b, "bad", 0) }, 1, true},
		{"one of many", func(b []byte) string { return pick(b, "bad", 7) }, 1, true},
		{"the last", func(b []byte) string { return pick(b, "bad", 19) }, 1, true},
		{"two that are apart", func(b []byte) string { return pick(b, "bad", 3, 9) }, 2, true},
		{"everything", func([]byte) string { return "go away" }, 1, false},
		{"trouble of its own", func([]byte) string { return "Internal server error." }, 0, false},
		{"too many connections", func([]byte) string { return "Too many connections from one peer." }, 0, false},
		{"too many connections, with the message's name", func([]byte) string { return "Too many connections from one peer.\nreceipt-id:$RECEIPT" }, 0, false},
		{"no link", func([]byte) string { return "This node has no active link with you." }, 0, false},
		{"the connection", nil, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // each takes some seconds
			authority, other := linktest.New(t, aa), linktest.New(t, ca)
			nodetest.Peer(t, authority.Node, other.Node)
			server := new(refuser)
			if tt.refuse == nil {
				server.hasty.Store(true)
				tt.refuse = takeAll
			}
			server.set(tt.refuse)
			stop := impostor(t, authority, server.serve)
			defer stop()
			other.Start()
			defer func() { _ = other.Stop() }() // before the server, which waits for its connections
			const count = 20
			other.Put(authority, numbered(t, other, authority, 0, count)...)
			if !tt.ends {
				linktest.Eventually(t, "more attempts than would set several messages aside", func() error {
					if server.connects.Load() < 12 {
						return errors.New(other.Log.String())
					}
					return nil
				})
				server.hasty.Store(false)
				server.set(takeAll)
			}
			reasons := other.WaitDrained(authority, tt.aside)
			for _, reason := range reasons {
				if !strings.Contains(reason, "refused by the peer: ") {
					t.Errorf("set aside: %q", reason)
				}
			}
			linktest.Eventually(t, "the counts", func() error {
				if c := statusOf(t, other, authority).Counts; int(c.SetAside) != tt.aside || c.Confirmed < uint64(count-tt.aside) {
					return fmt.Errorf("%+v", c)
				}
				return nil
			})
		})
	}
}

// pick returns text for the messages with these numbers.
func pick(body []byte, text string, numbers ...int) string {
	for _, n := range numbers {
		if bytes.Contains(body, fmt.Appendf(nil, `"number %d"`, n)) {
			return text
		}
	}
	return ""
}
