package rabbitmq

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/broker/rabbitmq/rabbittest"
)

// secret is the password, or a part of it, that errors and logs must not contain.
const secret = "sw0rdfish"

// An invalid URL is refused, with a reason, and without the password, even if the URL is
// written so that the password looks like another part.
func TestAddressRefused(t *testing.T) {
	for _, s := range []string{
		"http://peer:" + secret + "@localhost",
		"peer:" + secret + "@localhost",
		"amqp://peer:" + secret + "%zz@localhost",
		"amqp://peer:1234/" + secret + "@localhost",
		"amqp://peer:" + secret + "/x@localhost",
		"amqp://peer:1234?" + secret + "@localhost",
		"amqp://peer:1234#" + secret + "@localhost",
		"amqp://peer:" + secret + " @localhost",
		"amqp://peer:" + secret + "@localhost:99999999999",
		"amqp://peer:" + secret + "@localhost?heartbeat=often",
	} {
		b, err := Open(s, Options{})
		if err == nil {
			b.Close()
			t.Errorf("%s: accepted", s)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error shows the password: %v", s, err)
		}
	}
}

// Several URLs are separated by commas; a comma in a password is no separator. An error
// has the number of the URL.
func TestSeveralURLs(t *testing.T) {
	for _, test := range []struct {
		s    string
		want []string // host and port
	}{
		{"amqp://a", []string{"a:5672"}},
		{" amqp://a:1,amqps://b ,\n amqp://c:3/v ", []string{"a:1", "b:5671", "c:3"}},
		{"amqp://u:x,y@a,amqp://u:,@b", []string{"a:5672", "b:5672"}},
	} {
		a, err := parseURLs(test.s)
		var got []string
		for _, n := range a {
			got = append(got, net.JoinHostPort(n.host, n.port))
		}
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%q: got %q, %v, want %q", test.s, got, err, test.want)
		}
	}
	for s, want := range map[string]string{
		"amqp://a,http://u:" + secret + "@b":                       "can not be understood",
		"amqp://a,amqp://u:" + secret + "/@b":                      "URL number 2",
		"embedded,amqp://u:" + secret + "@b":                       "URL number 1",
		strings.Repeat("amqp://u:"+secret+"@a,", 16) + "amqp://b":  "more than 16",
		"amqp://u:" + secret + "@a,amqp://b?heartbeat=always,":     "URL number 2",
		"amqp://u:" + secret + "@a, amqp://u:" + secret + "@b c/x": "URL number 2",
	} {
		if _, err := parseURLs(s); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: got %v, want %q", s, err, want)
		}
	}
}

// Options that RabbitMQ can not support are refused.
func TestOptionsRefused(t *testing.T) {
	for _, opts := range []Options{{QueueType: "stream"}, {Prefetch: 1 << 16}} {
		if b, err := Open("amqp://localhost", opts); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: got %v, %v, want ErrInvalid", opts, b, err)
		}
	}
}

// When RabbitMQ refuses the user, has no such virtual host, or is not running, the error
// has the reason, and neither the error nor the log has the password.
func TestConnectRefused(t *testing.T) {
	s := rabbittest.Get(t)
	for _, test := range []struct {
		url, want string
		attempts  int
	}{
		{s.URLFor("guest:" + secret), "refuses the user name or password", 1}, // takes RabbitMQ some seconds
		{s.URL() + "/nowhere", "vhost nowhere not found", 2},
		{"amqp://guest:" + secret + "@127.0.0.1:1", "connection refused", 3},
	} {
		log := new(logBuffer)
		b := openTest(t, test.url, Options{Logger: log.logger()})
		for range test.attempts {
			_, err := b.Consume(testContext(t), "q")
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if all := err.Error() + log.String(); strings.Contains(all, secret) {
				t.Errorf("the password is shown: %s", all)
			}
		}
		if n := strings.Count(log.String(), "\n"); n != 1 {
			t.Errorf("%d failures for one reason are logged in %d lines, want 1:\n%s", test.attempts, n, log)
		}
	}
}

// Concurrent callers that need a connection share one attempt to connect; the next attempt
// follows after a pause; and waiting for it ends with the context.
func TestAttemptsShared(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var accepted atomic.Int64
	var waiting sync.WaitGroup
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			defer c.Close() // never responds
		}
	}()
	b := openTest(t, "amqp://"+l.Addr().String(), Options{ConnectTimeout: 500 * time.Millisecond})
	for range 20 {
		waiting.Go(func() {
			if _, err := b.Consume(testContext(t), "q"); err == nil {
				t.Error("connected to a server that sends nothing")
			}
		})
	}
	waiting.Wait()
	if n := accepted.Load(); n < 1 || n > 3 {
		t.Errorf("20 consumers have made %d connections, want 1", n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := b.Publish(ctx, func(uint64, error) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

// A write that RabbitMQ does not read fails after a timeout: without it, the library would
// block for ever, and the connection could not be closed.
func TestWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		defer server.Close()
		start := time.Now()
		if _, err := (deadlineConn{client, client}).Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v, want a timeout", err)
		}
		if took := time.Since(start); took != writeTimeout {
			t.Errorf("took %v, want %v", took, writeTimeout)
		}
	})
}
