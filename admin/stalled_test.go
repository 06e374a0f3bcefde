package admin

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"peerlink/link"
)

// smallBuffers is a listener whose connections have small send buffers, so that 300
// KiB do not fit into them.
type smallBuffers struct{ net.Listener }

func (l smallBuffers) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return c, c.(*net.TCPConn).SetWriteBuffer(32 << 10)
}

// If some clients do not send the body of their request or do not read the response,
// the requests of all others get their response immediately, in particular a liveness
// probe.
func TestStalledClients(t *testing.T) {
	for name, sent := range map[string]string{
		"no body":        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n",
		"no body to set": "PUT /log-level HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n",
		"not read":       "GET /links HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status := service()
			status.Peers = append(status.Peers, link.PeerStatus{ID: "large", Queues: []string{strings.Repeat("x", 300<<10)}})
			s := open(t, Config{Status: func() link.Status { return status }}, func(s *Server) { s.listeners[0].Listener = smallBuffers{s.listeners[0].Listener} })
			for range 70 {
				c, err := net.Dial("tcp", s.Addresses()[0])
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if err := c.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
					t.Fatal(err)
				}
				if _, err := io.WriteString(c, sent); err != nil {
					t.Fatal(err)
				}
			}
			client := &http.Client{Timeout: readTimeout}
			for _, path := range []string{"/healthz", "/readyz", "/metrics", "/log-level"} {
				resp, err := client.Get("http://" + s.Addresses()[0] + path)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("%s: %s, %v", path, resp.Status, err)
				}
				resp.Body.Close()
			}
		})
	}
}
