package stomp

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// lineEnds is an endless stream of line ends.
type lineEnds struct{ read int }

func (l *lineEnds) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '\n'
	}
	l.read += len(p)
	return len(p), nil
}

// An endless stream of line ends is not treated as heart-beats: the reader returns an
// error after a number of them, with either form of line end.
func TestLineEndFlood(t *testing.T) {
	for name, stream := range map[string]io.Reader{
		"LF":   &lineEnds{},
		"CRLF": strings.NewReader(strings.Repeat("\r\n", 1<<20)),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewReader(stream, Limits{}).ReadFrame()
			if reason := protocolReason(t, err); !strings.Contains(reason, "too many line ends") {
				t.Error(reason)
			}
		})
	}
}

// Numbers below the limit are accepted: several line ends after each frame, for any
// number of frames, and heart-beats on a connection of any duration, also when they are
// all read at once.
func TestLineEndsThatPass(t *testing.T) {
	t.Run("after frames", func(t *testing.T) {
		const count = 10_000
		r := NewReader(strings.NewReader(strings.Repeat("SEND\n\n\x00\n\r\n\n\n\n", count)), Limits{})
		for n := range count {
			if _, err := r.ReadFrame(); err != nil {
				t.Fatalf("frame %d: %v", n, err)
			}
		}
	})
	t.Run("heart-beats", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, w := io.Pipe()
			reader := NewReader(r, Limits{})
			go func() {
				for range 50_000 { // ten a second, for more than an hour
					time.Sleep(100 * time.Millisecond)
					io.WriteString(w, "\n")
				}
				w.Close()
			}()
			if _, err := reader.ReadFrame(); err != io.EOF {
				t.Error(err)
			}
		})
	})
	t.Run("heart-beats of an hour at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := NewReader(strings.NewReader(strings.Repeat("\n", 3600*10)), Limits{})
			time.Sleep(time.Hour)
			if _, err := r.ReadFrame(); err != io.EOF {
				t.Error(err)
			}
		})
	})
}

// The number of line ends is exact: all that are allowed are accepted, and one more is
// not, at the beginning as well as later.
func TestAllowanceIsExact(t *testing.T) {
	for after, allowed := range map[time.Duration]int{0: 1000, time.Second: 1100, 1500 * time.Millisecond: 1150} {
		synctest.Test(t, func(t *testing.T) {
			for _, tt := range []struct {
				count int
				ends  bool
			}{{allowed, true}, {allowed + 1, false}} {
				r := NewReader(strings.NewReader(strings.Repeat("\n", tt.count)), Limits{})
				time.Sleep(after)
				if _, err := r.ReadFrame(); (err == io.EOF) != tt.ends {
					t.Errorf("%d line ends after %v: %v", tt.count, after, err)
				}
			}
		})
	}
}

// A peer that floods its client with the same receipt, or with line ends, loses the
// connection.
func TestClientIsNotFlooded(t *testing.T) {
	for name, piece := range map[string]string{
		"receipts":  "RECEIPT\nreceipt-id:1\n\n\x00",
		"line ends": "\n",
	} {
		t.Run(name, func(t *testing.T) {
			nc, p := tcpPeer(t)
			client := openClient(t, nc, p)
			if _, err := client.Send(t.Context(), Message{Type: "X"}); err != nil {
				t.Fatal(err)
			}
			p.expect("SEND")
			p.raw("RECEIPT\nreceipt-id:1\n\n\x00")
			go func() { // until the client has closed the connection
				for {
					if _, err := io.WriteString(p.nc, strings.Repeat(piece, 100)); err != nil {
						return
					}
				}
			}()
			select {
			case <-client.Done():
			case <-time.After(patience):
				t.Fatal("the client has not closed the connection")
			}
			var violation *ProtocolError
			if err := client.Err(); !errors.As(err, &violation) {
				t.Errorf("the session ended with %v, want a ProtocolError", err)
			}
		})
	}
}

// openClient opens a session with a peer that acts as the server.
func openClient(t *testing.T, nc net.Conn, p *peer) *Client {
	t.Helper()
	opened := make(chan error, 1)
	var client *Client
	go func() {
		var err error
		client, err = NewClient(t.Context(), nc, ClientConfig{Host: "h", Destination: "/d"})
		opened <- err
	}()
	p.expect("STOMP")
	p.send("CONNECTED", "version", Version)
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}
