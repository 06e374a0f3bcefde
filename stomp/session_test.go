package stomp

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// session opens a session between a Client and a Server.
func session(t testing.TB, a, b net.Conn, ccfg ClientConfig, scfg ServerConfig) (*Client, *Server) {
	t.Helper()
	opened := make(chan *Server, 1)
	go func() {
		s, err := NewServer(t.Context(), b, scfg)
		if err != nil {
			t.Error(err)
		}
		opened <- s
	}()
	c, err := NewClient(t.Context(), a, ccfg)
	if err != nil {
		t.Fatal(err)
	}
	s := <-opened
	if s == nil {
		t.FailNow()
	}
	t.Cleanup(func() { c.Close(); <-c.Done(); s.Close() })
	return c, s
}

// Every message is received once, complete and in order, and is confirmed only after
// the server's user has called Confirm. A DISCONNECT right after the last message
// confirms all of them.
func TestSession(t *testing.T) {
	const n = 20_000
	a, b := tcp(t)
	var got receipts
	c, s := session(t, a, b,
		ClientConfig{Destination: "/in", Window: 100, OnReceipt: got.add},
		ServerConfig{Destination: "/in"})
	body := func(i uint64) []byte { return bytes.Repeat([]byte{byte(i)}, int(i%2000)) }

	served := make(chan error, 1)
	go func() {
		for i := uint64(1); ; i++ {
			m, err := s.Next()
			if errors.Is(err, io.EOF) && i == n+1 {
				served <- s.Finish()
				return
			}
			if err != nil || m.ID != fmt.Sprint(i) || m.Type != "T" || !bytes.Equal(m.Body, body(i)) {
				served <- fmt.Errorf("message %d: got %.100v, %w", i, m, err)
				return
			}
			// Receipts for a few at a time, and none for the last ones.
			if i%7 == 0 && i < n-50 {
				if err := s.Confirm(m.ID); err != nil {
					served <- err
					return
				}
			}
		}
	}()
	within(t, "session", func() {
		for i := uint64(1); i <= n; i++ {
			if got, err := c.Send(t.Context(), Message{Type: "T", Body: body(i)}); got != i || err != nil {
				t.Errorf("sent %d as %d: %v", i, got, err)
				return
			}
		}
		if err := c.Disconnect(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	seen := got.all()
	for i, v := range seen {
		if i > 0 && v <= seen[i-1] {
			t.Fatalf("confirmed %d after %d", v, seen[i-1])
		}
		if v%7 != 0 && v != n {
			t.Fatalf("confirmed %d, which the server did not", v)
		}
	}
	if len(seen) == 0 || seen[len(seen)-1] != n {
		t.Errorf("not everything is confirmed: %v", seen[max(0, len(seen)-3):])
	}
}

// tlsOver secures a connection with TLS, with a certificate that is not verified.
func tlsOver(t *testing.T, a, b net.Conn) (client, server net.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Client(a, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}),
		tls.Server(b, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}, MinVersion: tls.VersionTLS13})
}

// A client that is flooding the server receives the ERROR of the server, over TCP and
// over TLS, although what it goes on sending is not read any more.
func TestErrorReachesFloodingClient(t *testing.T) {
	for name, secure := range map[string]func(*testing.T, net.Conn, net.Conn) (net.Conn, net.Conn){
		"TCP": func(_ *testing.T, a, b net.Conn) (net.Conn, net.Conn) { return a, b },
		"TLS": tlsOver,
	} {
		t.Run(name, func(t *testing.T) {
			a, b := tcp(t)
			a, b = secure(t, a, b)
			c, s := session(t, a, b, ClientConfig{Destination: "/in", Window: 1 << 20}, ServerConfig{Destination: "/in"})
			failed := make(chan error, 1)
			go func() {
				for {
					m, err := s.Next()
					if err == nil && m.ID != "1000" {
						continue
					}
					if err == nil {
						err = s.Fail(&ServerError{Message: "no more", ReceiptID: m.ID})
					}
					failed <- err
					return
				}
			}()
			within(t, "end of session", func() {
				var err error
				for err == nil {
					_, err = c.Send(t.Context(), Message{Type: "T", Body: make([]byte, 2000)})
				}
				var got *ServerError
				if !errors.As(err, &got) || got.Message != "no more" || got.MessageNumber != 1000 {
					t.Errorf("client got %v", err)
				}
				if err := <-failed; err != nil {
					t.Errorf("server got %v", err)
				}
			})
		})
	}
}

// Two idle nodes stay connected forever, because of the heart-beats of both.
func TestIdleSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		c, s := session(t, a, b, ClientConfig{}, ServerConfig{})
		ended := make(chan error, 1)
		go func() {
			_, err := s.Next()
			ended <- err
		}()
		time.Sleep(10 * time.Hour)
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatalf("server lost the client: %v", err)
		case <-c.Done():
			t.Fatalf("client lost the server: %v", c.Err())
		default:
		}
		if _, err := c.Send(t.Context(), Message{Type: "T"}); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// The goroutines of a session end with it, however it ends: otherwise the test would
// not end.
func TestSessionLeavesNothingBehind(t *testing.T) {
	for name, end := range map[string]func(context.Context, *Client, *Server){
		"client closes": func(_ context.Context, c *Client, s *Server) { c.Close(); s.Next(); s.Finish() },
		"server closes": func(_ context.Context, c *Client, s *Server) { s.Close(); <-c.Done() },
		"server fails":  func(_ context.Context, c *Client, s *Server) { s.Fail(&ServerError{}); <-c.Done() },
		"disconnect": func(ctx context.Context, c *Client, s *Server) {
			go func() { s.Next(); s.Finish() }()
			c.Disconnect(ctx)
		},
		"disconnect in vain": func(ctx context.Context, c *Client, s *Server) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			c.Disconnect(ctx)
			s.Next()
			s.Next()
			s.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := net.Pipe()
				c, s := session(t, a, b, ClientConfig{}, ServerConfig{})
				end(t.Context(), c, s)
			})
		})
	}
}
