//go:build linux

package faulttest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"peerlink/link/linktest"
	"peerlink/node/nodetype"
)

// Tests of the suite itself: its parts work, and it would detect failures.

// moment is how long a test waits for an event that must not happen.
const moment = 50 * time.Millisecond

// silentServer starts a server that sends nothing. It returns its address and the
// connections that it accepts.
func silentServer(t *testing.T) (addr string, accepted <-chan net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	conns := make(chan net.Conn, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns <- c
		}
	}()
	return l.Addr().String(), conns
}

// testConn is a connection through a wire, with both ends.
type testConn struct {
	*testing.T
	wire           *wire
	accepted       <-chan net.Conn
	client, server net.Conn
}

func wireUp(t *testing.T, r rules) *testConn {
	t.Helper()
	addr, accepted := silentServer(t)
	w, err := newWire(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.end)
	w.set(r)
	c := &testConn{T: t, wire: w, accepted: accepted}
	if c.client, err = net.Dial("tcp", w.addr()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.client.Close() })
	c.server = <-accepted
	t.Cleanup(func() { c.server.Close() })
	return c
}

func (c *testConn) write(text string) {
	c.Helper()
	if _, err := c.client.Write([]byte(text)); err != nil {
		c.Fatal(err)
	}
}

// expect checks that text is received on a connection, and that after it, within
// limit, reading ends with the error end.
func (c *testConn) expect(conn net.Conn, text string, limit time.Duration, end error) {
	c.Helper()
	buf := make([]byte, len(text))
	conn.SetReadDeadline(time.Now().Add(linktest.Timeout))
	if n, err := io.ReadFull(conn, buf); string(buf) != text {
		c.Fatalf("received %q, %v, want %q", buf[:n], err, text)
	}
	conn.SetReadDeadline(time.Now().Add(limit))
	if n, err := conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, end) {
		c.Fatalf("then received %d bytes, error %v, want error %v", n, err, end)
	}
}

// A wire treats bytes and connections as its rules specify.
func TestWire(t *testing.T) {
	silence := os.ErrDeadlineExceeded
	t.Run("no rules", func(t *testing.T) {
		c := wireUp(t, rules{})
		c.write("hello")
		c.expect(c.server, "hello", moment, silence)
		c.client.Close()
		c.expect(c.server, "", linktest.Timeout, io.EOF)
	})
	t.Run("refuse", func(t *testing.T) {
		c := wireUp(t, rules{})
		c.wire.set(rules{refuse: true})
		conn, err := net.Dial("tcp", c.wire.addr())
		if err == nil {
			defer conn.Close()
			_, err = conn.Read(make([]byte, 1))
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("connecting to a wire that refuses: got error %v, want %v", err, syscall.ECONNRESET)
		}
	})
	t.Run("hold", func(t *testing.T) {
		c := wireUp(t, rules{ways: [2]way{toServer: {hold: true}}})
		c.write("hello")
		c.expect(c.server, "", moment, silence)
		c.wire.set(rules{})
		c.expect(c.server, "hello", moment, silence)
	})
	t.Run("swallow", func(t *testing.T) {
		c := wireUp(t, rules{ways: [2]way{toServer: {swallow: true}}})
		c.write("hello")
		c.expect(c.server, "", moment, silence)
		c.wire.set(rules{})
		c.write("hello")
		c.expect(c.server, "", moment, silence)
	})
	t.Run("delay", func(t *testing.T) {
		c := wireUp(t, rules{ways: [2]way{toServer: {delay: time.Hour}}})
		c.write("hello")
		c.expect(c.server, "", moment, silence)
		c.wire.set(rules{})
		c.expect(c.server, "hello", moment, silence)
	})
	t.Run("trickle", func(t *testing.T) {
		c := wireUp(t, rules{ways: [2]way{toServer: {trickle: true}}})
		c.write("hello")
		c.expect(c.server, "h", moment, silence)
		c.wire.set(rules{})
		c.expect(c.server, "ello", moment, silence)
	})
	t.Run("tear", func(t *testing.T) {
		c := wireUp(t, rules{ways: [2]way{toServer: {tear: true}}})
		c.write("hello!")
		c.expect(c.server, "hel", linktest.Timeout, syscall.ECONNRESET)
	})
	t.Run("duplicate", func(t *testing.T) {
		c := wireUp(t, rules{duplicate: true})
		other := <-c.accepted
		defer other.Close()
		c.write("hello")
		for i, conn := range []net.Conn{c.server, other} {
			c.expect(conn, "hello", moment, silence)
			fmt.Fprint(conn, i)
		}
		c.expect(c.client, "0", moment, silence)
	})
	t.Run("cut", func(t *testing.T) {
		c := wireUp(t, rules{})
		c.write("x")
		c.expect(c.server, "x", moment, silence)
		c.wire.each((*wireConn).cut)
		c.expect(c.client, "", linktest.Timeout, io.EOF)
		c.expect(c.server, "", linktest.Timeout, io.EOF)
	})
	t.Run("abandon", func(t *testing.T) {
		c := wireUp(t, rules{})
		c.write("x")
		c.expect(c.server, "x", moment, silence)
		c.wire.each((*wireConn).abandon)
		c.expect(c.client, "", linktest.Timeout, syscall.ECONNRESET)
		c.expect(c.server, "", moment, silence)
	})
}

// A ledger detects a message that is lost, arrives again, arrives before it is known to
// be accepted, was never sent, or is damaged.
func TestLedger(t *testing.T) {
	l := newLedger()
	for range 3 {
		l.next(10)
	}
	l.arrive(0, "")
	for n := range 3 {
		l.settle(n, nil)
	}
	l.arrive(2, "")
	l.arrive(2, "")
	l.arrive(2, "damaged")
	l.arrive(3, "")
	if want := (figures{Accepted: 3, Delivered: 2, Repeated: 1, Lost: 1, Damaged: 2}); l.sum() != want {
		t.Errorf("got %+v, want %+v", l.sum(), want)
	}
	if !l.passed(2) || l.passed(3) {
		t.Errorf("the highest number is %d, want 2", l.highest)
	}

	l = newLedger()
	l.next(1)
	if n, ok := l.next(1); ok {
		t.Errorf("message %d may be sent, though one is in flight", n)
	}
	l.settle(0, io.EOF)
	if n, ok := l.next(1); n != 0 || !ok {
		t.Error("a message that was not accepted is not sent again")
	}
	if l.sum() != (figures{}) {
		t.Errorf("got %+v for messages that were not accepted, want zeros", l.sum())
	}
}

// Every change of a message in transit is detected as damage.
func TestDamage(t *testing.T) {
	d := &direction{name: "CA→AA", from: &member{kind: nodetype.CreditorsAgent}, to: &member{kind: nodetype.AccountingAuthority}}
	w := &world{directions: []*direction{d}}
	for n := range 100 {
		m := d.message(n, worldTime())
		body, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if got, number, damage := w.check(body); got != d || number != n || damage != "" {
			t.Fatalf("message %d is read as %d, %q", n, number, damage)
		}
		for name, change := range map[string]func(*message){
			"type":     func(m *message) { m.Type = "RejectedConfig" },
			"debtor":   func(m *message) { m.Debtor++ },
			"creditor": func(m *message) { m.Creditor-- },
			"ts":       func(m *message) { m.TS = strings.Replace(m.TS, "+00:00", "+00:01", 1) },
			"data":     func(m *message) { m.Data += " " },
			"flags":    func(m *message) { m.Flags++ },
			"amount":   func(m *message) { m.Amount = 1 },
			"seqnum":   func(m *message) { m.Seqnum = nil },
		} {
			changed := m
			change(&changed)
			body, err := json.Marshal(changed)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, damage := w.check(body); damage == "" {
				t.Errorf("message %d: the change of its %s is not detected", n, name)
			}
		}
	}
}

// A process that ends by itself is detected, and restarted all the same.
func TestProcessEndsByItself(t *testing.T) {
	w := &world{t: t}
	m := w.add(nodetype.AccountingAuthority, nil)
	ends := make(chan string, 10)
	p := startProcess(m.name, m.settings, func(format string, args ...any) { ends <- fmt.Sprintf(format, args...) })
	defer p.end()
	serves := func() bool { return strings.Contains(p.log.String(), serving) }
	if !w.within(linktest.Timeout, serves) {
		t.Fatalf("the process does not serve:\n%s", p.log)
	}
	p.mu.Lock()
	pid := p.cmd.Process.Pid
	p.mu.Unlock()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if end := <-ends; !strings.Contains(end, "AA has ended by itself, signal: killed") {
		t.Error(end)
	}
	if !w.within(linktest.Timeout, func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.starts == 2 }) || !w.within(linktest.Timeout, serves) {
		t.Error("the process is not restarted")
	}
}

// README contains the number of kinds of faults.
func TestReadmeCountsKinds(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("faults of %d kinds", len(kinds)); !strings.Contains(string(text), want) {
		t.Errorf("README does not contain %q", want)
	}
}
