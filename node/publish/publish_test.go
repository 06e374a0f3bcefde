package publish

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// served is a node that publishes its info-bundle.
type served struct {
	*nodetest.Node
	t    *testing.T
	addr string
	stop func() error
}

func serve(t *testing.T, n *nodetest.Node, file string) *served {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s := New(Config{File: file, Root: n.Root(), Dir: n.Dir})
	s.readTimeout = 500 * time.Millisecond
	go func() { done <- s.Serve(ctx, l) }()
	stopped := false
	sv := &served{n, t, l.Addr().String(), func() error { cancel(); stopped = true; return <-done }}
	t.Cleanup(func() {
		if !stopped {
			if err := sv.stop(); err != nil {
				t.Errorf("the server ended with %v", err)
			}
		}
	})
	return sv
}

// ask sends a request, and returns the response and its body.
func (s *served) ask(method, path string, header http.Header) (*http.Response, []byte) {
	s.t.Helper()
	req, err := http.NewRequest(method, "http://"+s.addr+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp, body
}

func newNode(t *testing.T) *nodetest.Node {
	return nodetest.New(t, nodetype.AccountingAuthority, "a.example.com:1")
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Only the bundle is served, and only for reading. A client that has the bundle
// already gets status 304.
func TestRequests(t *testing.T) {
	n := newNode(t)
	want := readFile(t, n.Bundle(t))
	s := serve(t, n, n.PublishedBundle())
	resp, body := s.ask("GET", Path, nil)
	if resp.StatusCode != 200 || !bytes.Equal(body, want) || resp.Header.Get("Content-Type") != "application/zip" {
		t.Fatalf("%v with %d bytes, want %d", resp, len(body), len(want))
	}
	etag, date := resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")
	for _, tt := range []struct {
		method, path, header, value string
		status, size                int
	}{
		{"GET", Path + "?x=y", "", "", 200, len(want)},
		{"HEAD", Path, "", "", 200, 0},
		{"GET", Path, "If-None-Match", etag, 304, 0},
		{"GET", Path, "If-None-Match", `"other"`, 200, len(want)},
		{"GET", Path, "If-Modified-Since", date, 304, 0},
		{"GET", Path, "Range", "bytes=0-9", 206, 10},
		{"POST", Path, "", "", 405, -1},
		{"PUT", Path, "", "", 405, -1},
		{"DELETE", Path, "", "", 405, -1},
		{"OPTIONS", Path, "", "", 405, -1},
		{"GET", "/", "", "", 404, -1},
		{"GET", Path + "/", "", "", 404, -1},
		{"GET", "/db/nodeid", "", "", 404, -1},
		{"GET", "/../db/nodeid", "", "", 404, -1},
		{"GET", "/private/root-ca.key", "", "", 404, -1},
	} {
		header := make(http.Header)
		if tt.header != "" {
			header.Set(tt.header, tt.value)
		}
		resp, body := s.ask(tt.method, tt.path, header)
		if resp.StatusCode != tt.status || tt.size >= 0 && len(body) != tt.size || tt.size < 0 && len(body) > 100 {
			t.Errorf("%s %s %s %s: %s with %d bytes", tt.method, tt.path, tt.header, tt.value, resp.Status, len(body))
		}
	}
}

// A changed file is served from the next request on, unless peers would refuse its
// content: then the last valid bundle is served.
func TestFileChanges(t *testing.T) {
	n, stranger := newNode(t), newNode(t)
	file := filepath.Join(t.TempDir(), "bundle.zip")
	s := serve(t, n, file)
	if resp, _ := s.ask("GET", Path, nil); resp.StatusCode != 404 {
		t.Errorf("without a file: got status %s, want 404", resp.Status)
	}
	var last []byte
	etags := make(map[string]bool)
	for i, tt := range []struct {
		name string
		data []byte
		good bool
	}{
		{"junk", []byte("junk"), false},
		{"first", readFile(t, n.Bundle(t)), true},
		{"cut", readFile(t, n.Bundle(t))[:1000], false},
		{"a stranger's", readFile(t, stranger.Bundle(t)), false},
		{"second", readFile(t, n.Bundle(t)), true},
		{"gone", nil, false},
		{"third", readFile(t, n.Bundle(t)), true},
	} {
		if tt.data == nil {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(file, tt.data, 0o644); err != nil {
			t.Fatal(err)
		}
		// Files may be written faster than the clock of the file system advances.
		if err := os.Chtimes(file, time.Time{}, time.Now().Add(time.Duration(i-100)*time.Minute)); err != nil && tt.data != nil {
			t.Fatal(err)
		}
		if tt.good {
			last = tt.data
		}
		resp, body := s.ask("GET", Path, nil)
		if last == nil {
			if resp.StatusCode != 404 {
				t.Errorf("%s: %s", tt.name, resp.Status)
			}
			continue
		}
		if resp.StatusCode != 200 || !bytes.Equal(body, last) {
			t.Errorf("%s: got status %s with %d bytes, want the last valid bundle", tt.name, resp.Status, len(body))
		}
		etags[resp.Header.Get("ETag")] = true
	}
	if len(etags) != 3 {
		t.Errorf("%d ETags for three bundles", len(etags))
	}
}

// A file that could not be used is read again from time to time, even if it is
// unchanged: the cause may have been something else, such as a wrong clock.
func TestFileIsTriedAgain(t *testing.T) {
	n, stranger := newNode(t), newNode(t)
	n.Bundle(t)
	s := New(Config{File: n.PublishedBundle(), Root: stranger.Root()})
	if s.bundle() != nil {
		t.Fatal("published with the wrong root certificate")
	}
	s.cfg.Root = n.Root() // simulates the removal of the cause
	if s.bundle() != nil {
		t.Error("the file was read again for the next request")
	}
	for deadline := time.Now().Add(30 * time.Second); s.bundle() == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the file was not read again within 30 s")
		}
	}
}

// Clients that open connections and send nothing can occupy only a limited number of
// connections for a short time; afterwards, other clients are served. The size of
// requests is limited.
func TestHostileClients(t *testing.T) {
	n := newNode(t)
	n.Bundle(t)
	s := serve(t, n, n.PublishedBundle())
	var silent []net.Conn
	for range 100 {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	for i, c := range silent[:3] {
		c.SetDeadline(time.Now().Add(30 * time.Second))
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nX-%d: ", Path, i)
	}
	if resp, _ := s.ask("GET", Path, nil); resp.StatusCode != 200 {
		t.Errorf("beside silent clients: got status %s, want 200", resp.Status)
	}
	if _, err := silent[0].Read(make([]byte, 1)); err == nil {
		t.Error("the server has answered an incomplete request")
	} else if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		t.Error("the server has not closed the connection with an incomplete request")
	}

	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	go func() {
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n", Path)
		for range 10000 {
			if _, err := io.WriteString(c, "X: "+strings.Repeat("x", 100)+"\r\n"); err != nil {
				return
			}
		}
	}()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err == nil && resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("endless headers: %s", resp.Status)
	}
}

// Serve returns when its context is cancelled, also while idle clients are
// connected, and the port is free then.
func TestStop(t *testing.T) {
	n := newNode(t)
	s := serve(t, n, n.PublishedBundle())
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// The peer certificate of each peer is offered to whoever knows the peer's ID, and nothing else of the node's directory:
// not that of a peer that is deactivated, and not a file that was not signed with the node's root key.
func TestCertificates(t *testing.T) {
	n := newNode(t)
	peer, ended, forged := nodetest.New(t, nodetype.CreditorsAgent, "c.example.com:1"), nodetest.New(t, nodetype.CreditorsAgent, "d.example.com:1"), nodetest.New(t, nodetype.CreditorsAgent, "e.example.com:1")
	for _, other := range []*nodetest.Node{peer, ended, forged} {
		nodetest.Peer(t, n, other)
	}
	if _, err := n.DeactivatePeer(t.Context(), ended.Identity().ID); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.IssuedFile(forged.Identity().ID), readFile(t, filepath.Join(forged.Path(), "root-ca.crt")), 0o644); err != nil {
		t.Fatal(err)
	}
	s := serve(t, n, n.PublishedBundle())
	id := peer.Identity().ID
	resp, body := s.ask("GET", "/peers/"+id+".crt", nil)
	if want := readFile(t, n.IssuedFile(id)); resp.StatusCode != 200 || !bytes.Equal(body, want) {
		t.Errorf("%s with %q, want %q", resp.Status, body, want)
	}
	if resp, _ := s.ask("POST", "/peers/"+id+".crt", nil); resp.StatusCode != 405 {
		t.Errorf("POST: %s", resp.Status)
	}
	for _, path := range []string{
		ended.Identity().ID + ".crt", forged.Identity().ID + ".crt", "00000000.crt", ".crt", "..crt", "../peers/" + id + ".crt", id, id + "/root-ca.crt",
		id + ".crt/", id + "%2Fpeercert.crt", "%2e%2e%2froot-ca.crt", "x/../" + id + ".crt",
	} {
		if resp, body := s.ask("GET", "/peers/"+path, nil); resp.StatusCode != 404 || len(body) > 100 {
			t.Errorf("%s: %s with %d bytes", path, resp.Status, len(body))
		}
	}
	for bundle, want := range map[string]string{
		"http://h:1/info-bundle.zip":    "http://h:1/peers/1234abcd.crt",
		"https://h/a/b/my-node.zip?x=y": "https://h/a/b/peers/1234abcd.crt",
		"https://h/a%20b/my-node.zip":   "https://h/a%20b/peers/1234abcd.crt",
	} {
		if got, err := CertificateURL(bundle, "1234abcd"); got != want || err != nil {
			t.Errorf("%s: got %s, %v, want %s", bundle, got, err, want)
		}
	}
}
