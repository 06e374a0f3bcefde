package stomp

import (
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
)

// A program that keeps the IDs of received messages until they are confirmed does not
// keep the headers of their frames in memory.
func TestKeptIDsAreSmall(t *testing.T) {
	const messages = 2000
	client, nc := net.Pipe()
	defer client.Close()
	go func() { // reads the server's answers
		b := make([]byte, 1000)
		for {
			if _, err := client.Read(b); err != nil {
				return
			}
		}
	}()
	go func() {
		fmt.Fprint(client, "STOMP\naccept-version:1.2\nhost:/\n\n\x00")
		padding := strings.Repeat("x:"+strings.Repeat("y", 400)+"\n", 9)
		for n := range messages {
			fmt.Fprintf(client, "SEND\ndestination:/d\ntype:T\nreceipt:%d\n%s\n\x00", n, padding)
		}
	}()
	s, err := NewServer(t.Context(), nc, ServerConfig{Destination: "/d"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ids := make([]string, messages)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for n := range ids {
		m, err := s.Next()
		if err != nil {
			t.Fatal(err)
		}
		ids[n] = m.ID
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(ids)
	// Other tests may run at the same time; the headers would take 8 MiB.
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 2<<20 {
		t.Errorf("%d IDs take %d bytes", messages, grown)
	}
}
