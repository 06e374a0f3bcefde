package outproxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"peerlink/internal/outproxy/proxytest"
)

// start starts a proxy, and returns its URL with the user information.
func start(t *testing.T, s *proxytest.Server, scheme, user string) string {
	t.Helper()
	if err := s.Start(scheme); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return scheme + "://" + user + s.Addr()
}

// echo starts a server that returns what it receives, and returns its address.
func echo(t *testing.T) string {
	t.Helper()
	return listen(t, func(c net.Conn) { io.Copy(c, c) })
}

// listen starts a server, and returns its address.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
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
			go func() { defer c.Close(); serve(c) }()
		}
	}()
	return l.Addr().String()
}

func mustParse(t *testing.T, text string) *Proxy {
	t.Helper()
	p, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A connection through a proxy carries data both ways, also after the end of the context with which
// it was made. The proxy resolves the name, and gets the user name and the password. What is returned
// is the TCP connection itself.
func TestDial(t *testing.T) {
	t.Parallel()
	server := echo(t)
	for _, scheme := range []string{"socks5", "http"} {
		for _, user := range []string{"", "me:pass%20word@"} {
			t.Run(scheme+user, func(t *testing.T) {
				s := &proxytest.Server{Hosts: map[string]string{"peer.invalid:1234": server}}
				if user != "" {
					s.User, s.Password = "me", "pass word"
				}
				p := mustParse(t, start(t, s, scheme, user))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				conn, err := p.Dial(ctx, "peer.invalid:1234")
				cancel()
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if _, ok := conn.(*net.TCPConn); !ok {
					t.Errorf("the connection is a %T", conn)
				}
				fmt.Fprintln(conn, "hello")
				if line, err := bufio.NewReader(conn).ReadString('\n'); line != "hello\n" {
					t.Errorf("got %q, %v", line, err)
				}
				if got := fmt.Sprint(s.Requests()); got != "[peer.invalid:1234]" {
					t.Errorf("the proxy was asked for %s", got)
				}
			})
		}
	}
}

// The error of a connection that a proxy does not make names the proxy and what it has said, and
// contains neither user name nor password.
func TestDialErrors(t *testing.T) {
	t.Parallel()
	locked := proxytest.Server{User: "someone", Password: "else"}
	says := func(text string) string {
		return listen(t, func(c net.Conn) { io.CopyN(io.Discard, c, 3); io.WriteString(c, text); io.Copy(io.Discard, c) })
	}
	const user = "hidden-user:hidden-word@"
	for name, tt := range map[string]struct{ url, want string }{
		"socks5: nothing listens":  {"socks5://" + user + "127.0.0.1:1", "refused"},
		"http: nothing listens":    {"http://" + user + "127.0.0.1:1", "refused"},
		"socks5: denied":           {start(t, &proxytest.Server{Deny: true}, "socks5", user), "it answers: connection not allowed by ruleset"},
		"socks5: unreachable":      {start(t, &proxytest.Server{Hosts: map[string]string{"peer.invalid:1234": "127.0.0.1:1"}}, "socks5", user), "it answers: connection refused"},
		"http: denied":             {start(t, &proxytest.Server{Deny: true}, "http", user), "it answers 403 Forbidden"},
		"socks5: wrong password":   {start(t, &proxytest.Server{User: "a", Password: "b"}, "socks5", user), "it answers: username/password authentication failed"},
		"socks5: no password":      {start(t, &locked, "socks5", ""), "it answers: no acceptable authentication methods"},
		"http: wrong password":     {start(t, &proxytest.Server{User: "a", Password: "b"}, "http", user), "it answers 407 Proxy Authentication Required"},
		"socks5: is HTTP":          {"socks5://" + user + says("HTTP/1.1 400 Bad Request\r\n\r\n"), "unexpected protocol version 72"},
		"http: is no proxy":        {"http://" + user + says("SSH-2.0-OpenSSH_9.9\r\n"), "does not answer as an HTTP proxy"},
		"http: ends":               {"http://" + user + listen(t, func(c net.Conn) { bufio.NewReader(c).ReadString('\n') }), "closed the connection"},
		"socks5: ends":             {"socks5://" + user + listen(t, func(c net.Conn) { io.CopyN(io.Discard, c, 4) }), "closed the connection"},
		"http: endless header":     {"http://" + user + says("HTTP/1.1 200 OK\r\n"+strings.Repeat("X: y\r\n", maxAnswer/6)), "more than 16384 bytes"},
		"http: data at once":       {"http://" + user + says("HTTP/1.1 200 OK\r\n\r\nboo"), "sends data before"},
		"http: long status":        {"http://" + user + says("HTTP/1.1 500 "+strings.Repeat("x", 5000)+"\r\n\r\n"), "it answers 500 Internal Server Error"},
		"http: shows the password": {"http://" + user + says("HTTP/1.1 407 hidden-user:hidden-word\r\n\r\n"), "it answers 407 Proxy Authentication Required"},
	} {
		t.Run(name, func(t *testing.T) {
			p := mustParse(t, tt.url)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			conn, err := p.Dial(ctx, "peer.invalid:1234")
			if err == nil {
				conn.Close()
				t.Fatal("connected")
			}
			var pe *Error
			if text := err.Error(); !errors.As(err, &pe) || pe.Proxy != p.String() || !strings.Contains(text, tt.want) || !strings.HasPrefix(text, "proxy "+p.String()+", for a connection to peer.invalid:1234: ") ||
				strings.Contains(text, "hidden") || len(text) > 400 {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// A proxy that does not answer, or only byte by byte, holds a client until the end of its context and
// no longer.
func TestDialEndsWithContext(t *testing.T) {
	t.Parallel()
	for scheme, beginning := range map[string]string{"socks5": "\x05\x00\x05\x00", "http": "HTTP/1.1 200 OK\r\nX: y"} {
		for name, serve := range map[string]func(net.Conn){
			"silent": func(c net.Conn) { io.Copy(io.Discard, c) },
			"slow": func(c net.Conn) {
				for _, b := range []byte(beginning) {
					if _, err := c.Write([]byte{b}); err != nil {
						return
					}
				}
				io.Copy(io.Discard, c)
			},
		} {
			t.Run(scheme+" "+name, func(t *testing.T) {
				asked := make(chan struct{})
				p := mustParse(t, scheme+"://"+listen(t, func(c net.Conn) {
					io.CopyN(io.Discard, c, 3)
					close(asked)
					serve(c)
				}))
				ctx, cancel := context.WithCancel(t.Context())
				go func() { <-asked; cancel() }()
				if _, err := p.Dial(ctx, "peer.invalid:1234"); !errors.Is(err, context.Canceled) {
					t.Errorf("after the cancellation: %v", err)
				}
			})
		}
		p := mustParse(t, scheme+"://"+listen(t, func(c net.Conn) { io.Copy(io.Discard, c) }))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, err := p.Dial(ctx, "peer.invalid:1234"); err == nil || !errors.Is(err, errNoAnswer) && !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err) {
			t.Errorf("%s: after the end of the time: %v", scheme, err)
		}
		cancel()
	}
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout()
}

// Parse accepts what it can use, and says what it expects otherwise, without the URL.
func TestParse(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"socks5://p.example:1080", "socks5h://me:x@127.0.0.1:1080/", "http://[2001:db8::1]:3128", "http://me@p.example:3128"} {
		p, err := Parse(good)
		if err != nil || strings.Contains(p.String(), "me") {
			t.Errorf("%s: %v, %v", good, p, err)
		}
	}
	for _, bad := range []string{
		"", "secret", "secret:1080", "socks5:secret", "https://secret@p.example:1", "socks4://p.example:1", "socks5://me:secret@p.example", "http://me:se%zzcret@p.example:1",
		"http://me:secret@p.example:0", "http://me:secret@p.example:70000", "http://me:secret@:3128", "http://me:secret@p.example:1/path", "http://me:secret@p.example:1?x",
		"http://:secret@p.example:1", "http://me%3A:secret@p.example:1", "socks5://" + strings.Repeat("secret", 50) + "@p.example:1", "socks5://" + strings.Repeat("x", 2000) + ":1",
		"socks5://me:secret\n@p.example:1",
	} {
		p, err := Parse(bad)
		if err == nil || strings.Contains(err.Error(), "secret") || len(err.Error()) > 300 {
			t.Errorf("%.100q: %v, %v", bad, p, err)
		}
	}
}

// A password from elsewhere is used as one in the URL, and there must be exactly one, with a user
// name.
func TestWithPassword(t *testing.T) {
	t.Parallel()
	s := &proxytest.Server{User: "me", Password: "s3cret:"}
	server := echo(t)
	p, err := mustParse(t, start(t, s, "http", "me@")).WithPassword("s3cret:")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := p.Dial(t.Context(), server)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	for _, text := range []string{"http://p.example:1", "http://me:x@p.example:1"} {
		if _, err := mustParse(t, text).WithPassword("s3cret"); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := mustParse(t, "http://me@p.example:1").WithPassword(strings.Repeat("s3cret", 50)); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a long password: %v", err)
	}
}
