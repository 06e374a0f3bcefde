package link

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
)

// abort closes the connection and drops unsent data, which the kernel would otherwise keep for
// minutes: a stranger or peer that reads nothing could make it keep the data of many connections.
// The other side sees a reset instead of the end of the stream.
func TestAbortDropsUnsentData(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for name, wrap := range map[string]func(net.Conn) *wireConn{
		"accepted": func(c net.Conn) *wireConn { return &wireConn{Conn: &helloConn{Conn: c}} },
		"dialed":   func(c net.Conn) *wireConn { return &wireConn{Conn: c} },
	} {
		other, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		ours, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		wire := wrap(ours)
		abort(&peerConn{Conn: tls.Server(wire, new(tls.Config)), wire: wire})
		if _, err := other.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: the other side reads %v, want a reset connection", name, err)
		}
	}
}
