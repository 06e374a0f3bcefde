package link_test

import (
	"io"
	"net"
	"testing"
	"time"

	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// swallowLarge returns an address that forwards to another if the first data sent fit
// into a small packet, and drops them otherwise.
func swallowLarge(t *testing.T, to string) string {
	t.Helper()
	return serveEach(t, "127.0.0.1:0", func(in net.Conn) {
		hello := make([]byte, 16<<10)
		n, err := in.Read(hello)
		if err != nil {
			return
		}
		if n > 1280 {
			_, _ = io.Copy(io.Discard, in)
			return
		}
		out, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer out.Close()
		if _, err := out.Write(hello[:n]); err == nil {
			relay(in, out)
		}
	})
}

// A network that drops packets as large as a post-quantum ClientHello does not prevent
// a link: a handshake with small packets is tried, and the log says so.
func TestLargePacketsAreSwallowed(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	authority.WriteStompTOML(swallowLarge(t, authority.Addr))
	nodetest.Peer(t, authority.Node, other.Node)
	other.Config.HandshakeTimeout = time.Second
	authority.Start()
	other.Start()
	other.Put(authority, linktest.Message(t, other, authority, 1))
	authority.Take(1)
	says(t, other, "connected with a classical key exchange only", 1)
}
