package link

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"
)

// The error of a dial contains the server as the peer has named it, and its address.
func TestDialErrorNamesTheServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	s := &shared{cfg: Config{ConnectTimeout: time.Minute}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, host := range []string{"localhost", "127.0.0.1"} {
		addr := net.JoinHostPort(host, port)
		_, err := s.dial(ctx, addr, nil, nil)
		if err == nil {
			t.Fatalf("%s takes connections", addr)
		}
		if n := strings.Count(err.Error(), addr); n != 1 {
			t.Errorf("the error of %s names it %d times: %v", addr, n, err)
		}
	}
}
