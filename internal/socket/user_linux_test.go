package socket

import (
	"net"
	"os"
	"testing"
)

// The user at the other end of a loopback connection is known, over IPv4 and IPv6; the
// user of a connection that its client has closed is not reported as root.
func TestClientUser(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Skipf("skipped: %v", err)
		}
		defer l.Close()
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		if got := ClientUser(server); got != os.Getuid() {
			t.Errorf("%s: user %d, expected %d", address, got, os.Getuid())
		}
		client.Close()
		if got := ClientUser(server); got != -1 {
			t.Errorf("%s: user %d after the client has closed, expected none", address, got)
		}
	}
}

func BenchmarkClientUser(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	for b.Loop() {
		ClientUser(server)
	}
}
