package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// A browser shows the page of a running service, and executes no script that a
// hostile peer has put into its answers.
func TestPageInBrowser(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed: the page is not tested in a browser")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	t.Setenv("PEERLINK_ADMIN", address)
	authority, hostile := newServer(t, nodetype.AccountingAuthority), newServer(t, nodetype.CreditorsAgent)
	nodetest.Peer(t, authority.Node, hostile.Node)
	serveErrors(t, hostile, `<script>document.title='owned'</script><img src=x onerror="document.title='owned'"> of the peer`)
	authority.start()
	t.Cleanup(authority.kill)
	waitForPage(t, "http://"+address+"/", "of the peer")

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+filepath.Join(t.TempDir(), "profile"),
		"--dump-dom", "http://"+address+"/")
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	dom := string(out)
	for _, want := range []string{
		"<title>accounting-authority 1234abcd – peerlink</title>", ">1 of 1 links in trouble</span>", "<code>" + hostile.Identity().ID + "</code>",
		"&lt;script&gt;document.title='owned'&lt;/script&gt;",
	} {
		if !strings.Contains(dom, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	if strings.Count(dom, "<script") != 1 || strings.Contains(dom, "<img") {
		t.Error("the page has elements from the text of a peer")
	}
	if t.Failed() {
		t.Logf("page:\n%s", dom)
	}
}

// serveErrors starts a server of a peer that answers every connection with an ERROR frame.
func serveErrors(t *testing.T, s *server, message string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(s.cert, s.key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", s.addr, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprintf(c, "ERROR\nmessage:%s\n\n\x00", message)
				c.SetReadDeadline(time.Now().Add(time.Second))
				io.Copy(io.Discard, c) // closing the connection with unread data would reset it
			}()
		}
	}()
}

// waitForPage waits until the page contains the text.
func waitForPage(t *testing.T, url, text string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		page := ""
		res, err := http.Get(url)
		if err == nil {
			var data []byte
			data, err = io.ReadAll(res.Body)
			res.Body.Close()
			page = string(data)
		}
		if strings.Contains(page, text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q on the page: %v\n%s", text, err, page)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
