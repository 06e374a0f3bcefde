package link_test

import (
	"io"
	"strings"
	"testing"

	"peerlink/link/linktest"
	"peerlink/node/nodetest"
	"peerlink/stomp"
)

// A peer that sends each byte of its frames in its own TLS record is cut off within a
// few frames. A peer that sends head, body and line end of each frame in separate
// records is not, however many frames it sends.
func TestRecordsOfOneByte(t *testing.T) {
	t.Parallel()
	authority, bad := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, bad.Node)
	authority.Start()
	frame := sendFrame("1", linktest.Message(t, bad, authority, 1).Body)

	const frames = 2000
	conn := session(t, bad, authority)
	go func() {
		head, body, _ := strings.Cut(frame, "\n\n")
		for range frames {
			for _, record := range []string{head + "\n\n", body, "\n"} {
				if _, err := io.WriteString(conn, record); err != nil {
					return
				}
			}
		}
		_, _ = io.WriteString(conn, "DISCONNECT\nreceipt:end\n\n\x00")
	}()
	r := stomp.NewReader(conn, stomp.DefaultLimits())
	for last := ""; last != "end"; {
		f, err := r.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		last, _ = f.Get("receipt-id")
	}

	conn = session(t, bad, authority)
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	for i := range 200_000 {
		if _, err := io.WriteString(conn, frame[i%len(frame):][:1]); err != nil {
			waitForLog(t, authority, "next to no data")
			return
		}
	}
	t.Error("the node has read 200,000 records of one byte")
}
