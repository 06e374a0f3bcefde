package link_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"peerlink/link/linktest"
	"peerlink/node/nodetest"
	"peerlink/stomp"
)

// A peer that continues to send after it was refused can write no more than the kernel
// buffers hold and a little more: if one of its messages was refused, or if it was not admitted
// because its link is not active.
func TestRefusedPeersAreNotReadFrom(t *testing.T) {
	t.Parallel()
	const most = 20 << 20
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	authority.Start()

	flood := func(name, begin, chunk string) {
		conn, err := dialAs(other, authority)
		if err != nil {
			t.Fatal(name, err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(linktest.Timeout))
		if _, err := io.WriteString(conn, connectFrame+begin); err != nil {
			t.Fatal(name, err)
		}
		r := stomp.NewReader(conn, stomp.DefaultLimits())
		for {
			f, err := r.ReadFrame()
			if err != nil {
				t.Fatal(name, err)
			}
			if f.Command == "ERROR" {
				break
			}
		}
		data := bytes.Repeat([]byte(chunk), 64<<10/len(chunk))
		for written := 0; ; {
			n, err := conn.Write(data)
			if written += n; written > most {
				t.Errorf("%s: it could write more than %d bytes", name, most)
				return
			}
			if err != nil {
				return
			}
		}
	}
	frame := sendFrame("2", fmt.Append(nil, "{}"))
	flood("a message that is refused", sendFrame("1", fmt.Append(nil, "{}")), frame)
	if _, err := authority.DeactivatePeer(context.Background(), other.Identity().ID); err != nil {
		t.Fatal(err)
	}
	linktest.Eventually(t, "deactivation", func() error {
		if st := statusOf(t, authority, other); st.State != "deactivated" {
			return fmt.Errorf("the peer is %s", st.State)
		}
		return nil
	})
	flood("line ends after deactivation", "", "\n")
}
