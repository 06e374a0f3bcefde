package rabbitmq

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker/rabbitmq/rabbittest"
)

// proxy is a proxy to a server, which can be blocked: then it forwards nothing, and
// closes no connection, like a machine that hangs.
type proxy struct {
	net.Listener
	open sync.RWMutex // held, for writing, while blocked
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	return newProxyAt(t, "127.0.0.1:0", to)
}

// newProxyAt skips the test if the system does not have the address.
func newProxyAt(t *testing.T, addr, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skipf("skipped, a server at %s: %v", addr, err)
	}
	d := &proxy{Listener: l}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", to)
			if err != nil {
				here.Close()
				return
			}
			t.Cleanup(func() { here.Close(); there.Close() })
			go d.pass(here, there)
			go d.pass(there, here)
		}
	}()
	return d
}

func (d *proxy) pass(from, to net.Conn) {
	defer to.Close()
	buf := make([]byte, 1<<15)
	for {
		n, err := from.Read(buf)
		d.open.RLock()
		if err == nil {
			_, err = to.Write(buf[:n])
		}
		d.open.RUnlock()
		if err != nil {
			return
		}
	}
}

func (d *proxy) url(query string) string { return "amqp://guest:guest@" + d.Addr().String() + query }

// hostOf returns host and port of the server.
func hostOf(s *rabbittest.Server) string { return strings.TrimPrefix(s.URLFor("x:x"), "amqp://x:x@") }

// testFound tests that the server, the only address in url that works, is found soon, and that the log
// has this address.
func testFound(t *testing.T, s *rabbittest.Server, url string) {
	t.Helper()
	log := new(logBuffer)
	b := openTest(t, url, Options{Logger: log.logger()})
	start := time.Now()
	if err := b.Bind(testContext(t), testPeer()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 9*time.Second {
		t.Errorf("the address that works was found after %v, want at most 9s", took)
	}
	if want := "address=" + hostOf(s); !strings.Contains(log.String(), want) {
		t.Errorf("the log lacks %s:\n%s", want, log)
	}
}

// With several URLs, an address that works is found soon, whatever the fault of the
// others: an unknown host name, a closed port, or no answer, before or after the start
// of a TLS handshake. The log has the address that is used.
func TestNextAddress(t *testing.T) {
	s := rabbittest.Get(t)
	silent := newProxy(t, hostOf(s))
	silent.open.Lock()
	defer silent.open.Unlock()
	urls := []string{"amqp://nowhere.invalid", "amqp://127.0.0.1:1", silent.url(""), "amqps://" + silent.Addr().String(), s.URL()}
	for range 3 {
		testFound(t, s, strings.Join(urls, ","))
	}
	b := openTest(t, strings.Join(urls[:3], ","), Options{ConnectTimeout: 1500 * time.Millisecond})
	_, err := b.Consume(testContext(t), "q")
	for _, want := range []string{"nowhere.invalid", "connection refused", "no answer within 1.5s"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// A host name with several addresses is like several URLs: an address that refuses
// connections, and one that accepts them and never answers, cause no long delay. If each
// address fails, the error has the fault of each.
func TestNameWithSeveralAddresses(t *testing.T) {
	s := rabbittest.Get(t)
	_, port, err := net.SplitHostPort(hostOf(s))
	if err != nil {
		t.Fatal(err)
	}
	silent := newProxyAt(t, net.JoinHostPort("127.0.0.2", port), hostOf(s))
	silent.open.Lock()
	defer silent.open.Unlock()
	url := "amqp://guest:guest@" + net.JoinHostPort(names.Register(t, "127.0.0.3", "127.0.0.2", "127.0.0.1"), port)
	for range 4 { // the order of the addresses is random
		testFound(t, s, url)
	}
	t.Run("none works", func(t *testing.T) {
		url := "amqp://" + net.JoinHostPort(names.Register(t, "127.0.0.3", "127.0.0.2"), port)
		b := openTest(t, url, Options{ConnectTimeout: 1500 * time.Millisecond})
		_, err := b.Consume(testContext(t), "q")
		for _, want := range []string{"127.0.0.3:" + port, "connection refused", "127.0.0.2:" + port, "no answer within 1.5s"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		}
	})
}

// Connections are spread over the addresses.
func TestSpread(t *testing.T) {
	s := rabbittest.Get(t)
	one, other := newProxy(t, hostOf(s)), newProxy(t, hostOf(s))
	count := make(map[string]int)
	for range 20 {
		b := openTest(t, one.url("")+","+other.url(""), Options{})
		l, err := b.declaring.get(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		count[l.address]++
	}
	if len(count) != 2 {
		t.Errorf("20 connections go to %v", count)
	}
}

// Both idle and busy connections leave an address that hangs, and messages are moved over
// another one: that of another URL, or another one of the same host name.
func TestFrozenAddressLeft(t *testing.T) {
	s := rabbittest.Get(t)
	const quick = "?heartbeat=2" // three seconds of silence
	t.Run("URLs", func(t *testing.T) {
		t.Parallel()
		one, other := newProxy(t, hostOf(s)), newProxy(t, hostOf(s))
		testFrozenAddressLeft(t, s, one.url(quick)+","+other.url(quick), one, other)
	})
	t.Run("name", func(t *testing.T) {
		t.Parallel()
		one := newProxy(t, hostOf(s))
		_, port, err := net.SplitHostPort(one.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		other := newProxyAt(t, net.JoinHostPort("127.0.0.2", port), hostOf(s))
		name := names.Register(t, "127.0.0.1", "127.0.0.2")
		testFrozenAddressLeft(t, s, "amqp://guest:guest@"+net.JoinHostPort(name, port)+quick, one, other)
	})
}

// testFrozenAddressLeft tests with a URL that leads to the addresses of two proxies.
func testFrozenAddressLeft(t *testing.T, s *rabbittest.Server, url string, one, other *proxy) {
	b := openTest(t, url, Options{})
	o := newTestClient(t, s)
	inbox := "accounts_in" + suffix()
	o.inbox(inbox)
	q, c := bindAndConsume(t, b)
	p := openStream(t, b)
	o.check(p.Publish(testContext(t), incoming(inbox, "", "1")))
	if _, err := p.wait(1); err != nil {
		t.Fatal(err)
	}
	frozen := one
	if b.consuming.latest().address == other.Addr().String() {
		frozen = other
	}
	frozen.open.Lock()
	defer frozen.open.Unlock()
	start := time.Now()
	o.check(o.send(q.Exchange, q.PeerID+".1", amqp.Publishing{}))
	eventually(t, "consuming", func() error {
		ds, err := c.Next(testContext(t), 1)
		if err == nil && len(ds) == 1 {
			return nil
		}
		c.Close()
		if next, again := b.Consume(testContext(t), q.Queues[0]); again == nil {
			c = next
		}
		return fmt.Errorf("got %d messages, %w", len(ds), err)
	})
	p = openStream(t, b)
	o.check(p.Publish(testContext(t), incoming(inbox, "", "2")))
	if n, err := p.wait(1); n != 1 || err != nil {
		t.Errorf("%d confirmed, %v", n, err)
	}
	if took := time.Since(start); took > 9*time.Second {
		t.Errorf("both connections have changed the address after %v, want at most 9s", took)
	}
}
