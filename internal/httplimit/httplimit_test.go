package httplimit

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// start serves with a limit of open files that allows 8 connections without a request.
func start(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	Apply(s.Config, 128)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// Clients that connect and send nothing, or half a request, keep nobody out: the oldest of
// them are closed.
func TestSilentClients(t *testing.T) {
	for name, sent := range map[string]string{"silent": "", "half": "GET / HTTP/1.1\r\nHost:"} {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "here") })
			var held []net.Conn
			for range 20 {
				c, err := net.Dial("tcp", s.Listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := io.WriteString(c, sent); err != nil {
					t.Fatal(err)
				}
				held = append(held, c)
			}
			client := &http.Client{Timeout: 10 * time.Second}
			for range 3 { // the connection is used again
				resp, err := client.Get(s.URL)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || string(body) != "here" {
					t.Errorf("got %q, %v", body, err)
				}
			}
			held[0].SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := held[0].Read(make([]byte, 1)); err == nil || isTimeout(err) {
				t.Errorf("the oldest connection is open: %v", err)
			}
		})
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// A request that is being served is not cut off for new connections, and no more than
// MaxRequests are served at once.
func TestRequestsAreBounded(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	s := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			begun <- struct{}{}
			<-end
		}
		io.WriteString(w, "here")
	})
	results := make(chan int, MaxRequests)
	get := func(path string) int {
		resp, err := http.Get(s.URL + path)
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	for range MaxRequests {
		go func() { results <- get("/slow") }()
		<-begun
	}
	for range 20 {
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if code := get("/"); code != http.StatusServiceUnavailable {
		t.Errorf("the answer to one request too many is %d", code)
	}
	close(end)
	for range MaxRequests {
		if code := <-results; code != http.StatusOK {
			t.Errorf("the answer to a slow request is %d", code)
		}
	}
	if code := get("/"); code != http.StatusOK {
		t.Errorf("the answer to a request afterwards is %d", code)
	}
}
