package httplimit

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// start serves with a limit of open files that allows 8 connections. The connections have
// small buffers, so that 256 KiB do not fit into them.
func start(t *testing.T, h http.HandlerFunc) (*httptest.Server, *countingListener) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	l := &countingListener{Listener: s.Listener}
	s.Listener = l
	Apply(s.Config, 128)
	s.Start()
	t.Cleanup(s.Close)
	return s, l
}

// countingListener counts the connections that are open.
type countingListener struct {
	net.Listener
	open, most atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tcp := c.(*net.TCPConn)
	if err := tcp.SetWriteBuffer(32 << 10); err != nil {
		return nil, err
	}
	if n := l.open.Add(1); n > l.most.Load() { // Accept is called by one goroutine
		l.most.Store(n)
	}
	return &countedConn{TCPConn: tcp, l: l}, nil
}

type countedConn struct {
	*net.TCPConn
	l      *countingListener
	closed atomic.Bool
}

func (c *countedConn) Close() error {
	err := c.TCPConn.Close()
	if c.closed.CompareAndSwap(false, true) {
		c.l.open.Add(-1)
	}
	return err
}

// dial connects, sends the given text, and reads nothing.
func dial(t *testing.T, s *httptest.Server, sent string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, sent) // an error means that the server has closed the connection
	return c
}

// get returns the body of the response to a request of a normal client.
func get(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return string(body)
}

// Clients that send nothing, half a request or no body, or do not read the response, do
// not prevent other clients from being served, and have no more connections than allowed:
// the oldest of them are closed.
func TestStalledClients(t *testing.T) {
	large := strings.Repeat("x", 256<<10)
	for name, sent := range map[string]string{
		"silent":              "",
		"half a header":       "GET / HTTP/1.1\r\nHost:",
		"no body":             "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n",
		"no body, large":      "GET /large HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n",
		"no chunk":            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
		"body in the end":     "PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n",
		"header too long":     "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 64<<10),
		"response not read":   "GET /large HTTP/1.1\r\nHost: a\r\n\r\n",
		"buffered, not read":  "GET /buffered HTTP/1.1\r\nHost: a\r\n\r\n",
		"OPTIONS without end": "OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			buffered := Buffered(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, large) })
			s, l := start(t, func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/large":
					io.WriteString(w, large)
				case "/buffered":
					buffered(w, r)
				default:
					io.WriteString(w, "here")
				}
			})
			oldest := dial(t, s, sent)
			for range 40 {
				dial(t, s, sent)
			}
			client := &http.Client{Transport: new(http.Transport), Timeout: 10 * time.Second}
			defer client.CloseIdleConnections()
			for range 3 { // the connection is used again
				if got := get(t, client, s.URL); got != "here" {
					t.Errorf("got %q", got)
				}
			}
			if got := get(t, client, s.URL+"/buffered"); got != large {
				t.Errorf("got %d bytes", len(got))
			}
			oldest.SetReadDeadline(time.Now().Add(10 * time.Second))
			if n, err := io.Copy(io.Discard, oldest); n >= int64(len(large)) || isTimeout(err) {
				t.Errorf("the oldest connection is open after %d bytes: %v", n, err)
			}
			if most := l.most.Load(); most > 9 { // one is accepted before another is closed
				t.Errorf("%d connections were open", most)
			}
		})
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// The number of handlers that hang is bounded, even if the connections of their clients
// are closed and new connections follow.
func TestHandlersAreBounded(t *testing.T) {
	var running, most atomic.Int64
	begun, end := make(chan struct{}, 100), make(chan struct{})
	s, _ := start(t, func(http.ResponseWriter, *http.Request) {
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		begun <- struct{}{}
		<-end
		running.Add(-1)
	})
	for range 40 {
		dial(t, s, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	}
	for range 8 {
		<-begun
	}
	last := dial(t, s, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	close(end)
	if resp, err := http.ReadResponse(bufio.NewReader(last), nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%v, %v", resp, err)
	}
	if most.Load() > 8 {
		t.Errorf("%d handlers ran at once", most.Load())
	}
}

// A request that finds no free slot is answered when the server's ReadTimeout is over, also
// if its client has begun the next request already: net/http reads nothing more then, and
// the context of the request does not end.
func TestWaitForSlotIsBounded(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler is called") }))
	s.Config.ReadTimeout = 100 * time.Millisecond
	Apply(s.Config, 128)
	for l := s.Config.Handler.(*limiter); len(l.running) < cap(l.running); {
		l.running <- struct{}{}
	}
	s.Start()
	defer s.Close()
	c := dial(t, s, "GET / HTTP/1.1\r\nHost: a\r\n\r\nG")
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("%v, %v", resp, err)
	}
}

// A body is read completely before the handler is called. If it does not arrive in time, is
// too long, or is not allowed, the client gets an error status.
func TestBody(t *testing.T) {
	s, _ := start(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	for _, tt := range []struct {
		method, header, body string
		status               int
		want                 string
	}{
		{"PUT", "Content-Length: 5\r\n", "hello", http.StatusOK, "hello"},
		{"PUT", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", http.StatusOK, "hello"},
		{"PUT", "Content-Length: 6\r\n", "hello", http.StatusRequestTimeout, ""},
		{"PUT", "Content-Length: 10000\r\n", strings.Repeat("x", 10000), http.StatusRequestEntityTooLarge, ""},
		{"GET", "Content-Length: 5\r\n", "", http.StatusBadRequest, ""},
	} {
		c := dial(t, s, tt.method+" / HTTP/1.1\r\nHost: a\r\n"+tt.header+"\r\n"+tt.body)
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("%q: %v", tt.header, err)
		}
		got, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != tt.status || tt.want != "" && string(got) != tt.want {
			t.Errorf("%q: %s with %q, %v", tt.header, resp.Status, got, err)
		}
	}
}

// A closed connection is removed from the limiter, whatever its requests were.
func TestConnectionsAreForgotten(t *testing.T) {
	s, l := start(t, func(http.ResponseWriter, *http.Request) {})
	limiter := s.Config.Handler.(*limiter)
	c := dial(t, s, strings.Repeat("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 5)+"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Fatal(err)
	}
	removed := func() bool {
		limiter.mu.Lock()
		defer limiter.mu.Unlock()
		return len(limiter.clients) == 0
	}
	for deadline := time.Now().Add(10 * time.Second); !removed() || l.open.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are open", l.open.Load())
		}
	}
	if limiter.conns.Evict() {
		t.Error("a closed connection counts as open")
	}
}

// Clients that do not read large responses do not prevent others from getting them: if
// there are more than 64 such responses, the connection of the oldest one is closed.
func TestResponsesAreBounded(t *testing.T) {
	large := strings.Repeat("x", 256<<10)
	var computed atomic.Int64
	s := httptest.NewUnstartedServer(Buffered(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, large)
		computed.Add(1)
	}))
	s.Listener = &countingListener{Listener: s.Listener}
	Apply(s.Config, 1<<20)
	s.Start()
	t.Cleanup(s.Close)
	const slow = maxResponses + 20
	var oldest net.Conn
	for i := range slow {
		c := dial(t, s, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if oldest == nil {
			oldest = c
		}
		for deadline := time.Now().Add(10 * time.Second); computed.Load() <= int64(i); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d responses were computed", computed.Load())
			}
		}
	}
	if got := get(t, s.Client(), s.URL); got != large {
		t.Errorf("got %d bytes", len(got))
	}
	oldest.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := io.Copy(io.Discard, oldest); n >= int64(len(large)) || isTimeout(err) {
		t.Errorf("the oldest connection is open after %d bytes: %v", n, err)
	}
}
